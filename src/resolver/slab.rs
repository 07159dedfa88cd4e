//! Things by small numbers that are used again.

/// What is in it keeps its number until it is taken out.
pub(super) struct Slab<T> {
    slots: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    pub(super) fn new() -> Slab<T> {
        Slab { slots: Vec::new(), free: Vec::new() }
    }

    /// The number that [`Slab::insert`] uses next.
    pub(super) fn next(&self) -> u32 {
        self.free.last().copied().unwrap_or(self.slots.len() as u32)
    }

    pub(super) fn insert(&mut self, value: T) -> u32 {
        let index = self.next();
        match self.free.pop() {
            Some(_) => self.slots[index as usize] = Some(value),
            None => self.slots.push(Some(value)),
        }
        index
    }

    pub(super) fn get(&self, index: u32) -> Option<&T> {
        self.slots.get(index as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.slots.get_mut(index as usize)?.as_mut()
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<T> {
        let value = self.slots.get_mut(index as usize)?.take();
        if value.is_some() {
            self.free.push(index);
        }
        value
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}
