//! The heap's pages.
//!
//! The allocator asks for huge pages for all of its memory, and gives each thread a part of its
//! own: a dozen threads that hold a few kilobytes each take 30 MiB. What is large here, zones and
//! the cache, has mappings of its own ([`super::Region`], [`super::Pages`]), so the heap can do
//! without, as long as it does not hold thousands of small zones.

use std::ops::Range;

/// Has the heap as it is mapped now (a GiB, mostly) take pages of 4 KiB from now on. `maps` is what
/// `/proc/self/maps` says; where that does not have the heap, it stays as it was. To be called
/// before threads are started.
pub fn small_pages(maps: &str) {
    let probe = Box::new(0u8);
    let address = std::ptr::from_ref(&*probe) as usize;
    if let Some(range) = mapping_of(maps, address) {
        let start = std::ptr::with_exposed_provenance_mut(range.start);
        // SAFETY:
        // - The range is a mapping that the allocator's memory is in. The advice changes no
        //   contents; a kernel without huge pages refuses it, and nothing is lost.
        unsafe { libc::madvise(start, range.len(), libc::MADV_NOHUGEPAGE) };
    }
}

/// The mapping that has `address`, of those that `maps` lists as `/proc/self/maps` does.
fn mapping_of(maps: &str, address: usize) -> Option<Range<usize>> {
    let ranges = maps.lines().filter_map(|line| {
        let (start, end) = line.split(' ').next()?.split_once('-')?;
        let number = |text| usize::from_str_radix(text, 16).ok();
        Some(number(start)?..number(end)?)
    });
    ranges.into_iter().find(|range| range.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_is_found_by_an_address_in_it() {
        let maps = "55d0-55f0 r-xp 00000000 fe:00 1 /bin/x\n7f00-7f80 rw-p 0 00:00 0 \nno line\n";
        assert_eq!(mapping_of(maps, 0x7f00), Some(0x7f00..0x7f80));
        assert_eq!(mapping_of(maps, 0x7f80), None);
        assert_eq!(mapping_of(maps, 0x55ef), Some(0x55d0..0x55f0));
    }
}
