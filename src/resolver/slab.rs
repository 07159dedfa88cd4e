//! Things by small numbers that are used again.

/// Places that are made at once: none is ever moved.
const CHUNK: usize = 64;

/// What is in it keeps its number until it is taken out.
pub struct Slab<T> {
    chunks: Vec<Box<[Option<T>]>>,
    free: Vec<u32>,
    len: usize,
}

impl<T> Slab<T> {
    /// Nothing yet.
    pub fn new() -> Slab<T> {
        Slab { chunks: Vec::new(), free: Vec::new(), len: 0 }
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flat_map(|chunk| chunk.iter().flatten())
    }

    /// The number that [`Slab::insert`] uses next.
    pub fn next(&self) -> u32 {
        // Without free places, all there have ever been are taken.
        self.free.last().copied().unwrap_or(self.len as u32)
    }

    /// Puts something in; its number.
    pub fn insert(&mut self, value: T) -> u32 {
        let index = self.next();
        if self.free.pop().is_none() && index as usize == self.chunks.len() * CHUNK {
            self.chunks.push((0..CHUNK).map(|_| None).collect());
        }
        self.chunks[index as usize / CHUNK][index as usize % CHUNK] = Some(value);
        self.len += 1;
        index
    }

    /// What has a number.
    pub fn get(&self, index: u32) -> Option<&T> {
        self.chunks.get(index as usize / CHUNK)?[index as usize % CHUNK].as_ref()
    }

    /// What has a number.
    pub fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.chunks.get_mut(index as usize / CHUNK)?[index as usize % CHUNK].as_mut()
    }

    /// Takes it out: its number is free.
    pub fn remove(&mut self, index: u32) -> Option<T> {
        let value = self.chunks.get_mut(index as usize / CHUNK)?[index as usize % CHUNK].take()?;
        self.free.push(index);
        self.len -= 1;
        Some(value)
    }

    /// How many are in it.
    pub fn len(&self) -> usize {
        self.len
    }
}

impl<T> Default for Slab<T> {
    fn default() -> Slab<T> {
        Slab::new()
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_and_are_used_again() {
        let mut slab = Slab::new();
        let count = 3 * CHUNK as u32;
        for value in 0..count {
            assert_eq!((slab.next(), slab.insert(value)), (value, value));
        }
        for index in (0..count).filter(|index| index % 3 == 0) {
            assert_eq!((slab.remove(index), slab.remove(index)), (Some(index), None));
        }
        assert_eq!((slab.len(), slab.iter().count()), (2 * CHUNK, 2 * CHUNK));
        assert!(slab.iter().all(|value| slab.get(*value) == Some(value)));
        for _ in 0..CHUNK {
            let index = slab.next();
            assert!(slab.get(index).is_none() && index % 3 == 0);
            assert_eq!(slab.insert(index), index);
        }
        assert!(slab.get_mut(count).is_none() && slab.remove(count).is_none());
        assert_eq!(slab.insert(count), count);
        assert!(!slab.is_empty());
    }
}
