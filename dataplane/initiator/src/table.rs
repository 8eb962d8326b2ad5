//! Things by path and queue.

use crate::client::IO_QUEUES_MAX;

/// At most one thing for each queue of each path.
#[derive(Debug)]
pub(crate) struct Table<T>(Vec<Vec<Option<T>>>);

impl<T> Table<T> {
    /// For so many paths.
    pub(crate) fn new(paths: usize) -> Self {
        Self(std::iter::repeat_with(Vec::new).take(paths).collect())
    }

    pub(crate) fn get_mut(&mut self, path: usize, queue: usize) -> Option<&mut T> {
        self.0.get_mut(path)?.get_mut(queue)?.as_mut()
    }

    /// All of a path.
    pub(crate) fn of(&self, path: usize) -> impl Iterator<Item = &T> {
        self.0.get(path).into_iter().flatten().flatten()
    }

    /// Puts one there, in place of what was. Given back when there is no such place.
    pub(crate) fn put(&mut self, path: usize, queue: usize, thing: T) -> Result<(), T> {
        let Some(queues) = self.0.get_mut(path) else {
            return Err(thing);
        };
        if queue > usize::from(IO_QUEUES_MAX) {
            return Err(thing);
        }
        if queues.len() <= queue {
            queues.resize_with(queue + 1, || None);
        }
        if let Some(slot) = queues.get_mut(queue) {
            *slot = Some(thing);
        }
        Ok(())
    }

    /// Takes those of a path out that are wanted.
    pub(crate) fn take(
        &mut self,
        path: usize,
        is_wanted: impl Fn(&T) -> bool,
    ) -> impl Iterator<Item = T> {
        let queues = self.0.get_mut(path).into_iter().flatten();
        queues.filter_map(move |slot| slot.take_if(|thing| is_wanted(thing)))
    }
}
