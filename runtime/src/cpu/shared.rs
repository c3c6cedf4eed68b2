//! Memory that the threads of one forward pass share.
//!
//! Threads run the same operations in step and meet at barriers; between two barriers each thread
//! writes only rows that are its own and reads only rows that nobody writes. The borrow checker
//! cannot see that protocol, so the two accessors are unsafe and say what the caller vouches for.

use std::cell::UnsafeCell;
use std::ops::Range;

/// A zeroed buffer, readable and writable in disjoint ranges from many threads.
pub(crate) struct SharedBuf<T> {
    cells: Box<[UnsafeCell<T>]>,
}

// SAFETY: access to the cells goes through `read` and `write`, whose callers vouch that ranges
// written by one thread are not touched by another before a barrier orders them.
unsafe impl<T: Send + Sync> Sync for SharedBuf<T> {}

impl<T: bytemuck::Zeroable + Copy> SharedBuf<T> {
    /// `len` zeros, or `None` when the system has no room. The pages are taken only when touched.
    pub(crate) fn zeroed(len: usize) -> Option<Self> {
        let layout = std::alloc::Layout::array::<UnsafeCell<T>>(len).ok()?;
        if layout.size() == 0 {
            return Some(SharedBuf { cells: Box::new([]) });
        }
        // SAFETY: the layout is not empty; zeros are a valid `T` (Zeroable), `UnsafeCell<T>` has
        // the layout of `T`, and the box frees with the layout that was allocated.
        let cells = unsafe {
            let p = std::alloc::alloc_zeroed(layout);
            if p.is_null() {
                return None;
            }
            Box::from_raw(std::ptr::slice_from_raw_parts_mut(p.cast::<UnsafeCell<T>>(), len))
        };
        Some(SharedBuf { cells })
    }

    /// Number of elements.
    pub(crate) fn len(&self) -> usize {
        self.cells.len()
    }

    /// Grows to at least `len` elements, all zero again when it had to.
    pub(crate) fn reserve(&mut self, len: usize) -> Option<()> {
        if self.len() < len {
            *self = Self::zeroed(len)?;
        }
        Some(())
    }

    /// Asks for a range that this thread will write soon, as far as there is one.
    #[inline]
    pub(crate) fn ask_to_write(&self, r: Range<usize>) {
        if let Some(cells) = self.cells.get(r) {
            quant::kernels::ask_to_write(cells);
        }
    }

    /// # Safety
    /// No thread writes this range before the next barrier.
    #[inline]
    pub(crate) unsafe fn read(&self, r: Range<usize>) -> &[T] {
        let cells = &self.cells[r];
        // SAFETY: the cells were bounds-checked; nobody writes them while the slice lives.
        unsafe { std::slice::from_raw_parts(cells.as_ptr().cast::<T>(), cells.len()) }
    }

    /// # Safety
    /// No other thread reads or writes this range before the next barrier, and the caller holds no
    /// other slice of it.
    #[inline]
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn write(&self, r: Range<usize>) -> &mut [T] {
        let cells = &self.cells[r];
        // SAFETY: the cells were bounds-checked; nobody else touches them while the slice lives.
        unsafe { std::slice::from_raw_parts_mut(cells.as_ptr() as *mut T, cells.len()) }
    }

    /// The whole buffer for writing, when there is only one owner.
    pub(crate) fn get_mut(&mut self) -> &mut [T] {
        // SAFETY: `&mut self` proves that no thread holds a slice.
        unsafe { self.write(0..self.len()) }
    }

    /// The whole buffer, when there is only one owner.
    pub(crate) fn get(&mut self) -> &[T] {
        // SAFETY: `&mut self` proves that no thread holds a slice.
        unsafe { self.read(0..self.len()) }
    }
}
