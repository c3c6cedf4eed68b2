//! Memory that the threads of one forward pass share.
//!
//! Threads run the same operations in step and meet at barriers; between two barriers each thread
//! writes only rows that are its own and reads only rows that nobody writes. The borrow checker
//! cannot see that protocol, so the two accessors are unsafe and say what the caller vouches for.

use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::ops::Range;

use memmap2::MmapMut;

use crate::mapping::memory;

/// A zeroed buffer, readable and writable in disjoint ranges from many threads, in large pages where the system has
/// them to give.
pub(crate) struct SharedBuf<T> {
    /// `len` of `T`. Access goes through `read` and `write`, whose callers vouch that ranges written by one thread
    /// are not touched by another before a barrier orders them.
    map: MmapMut,
    len: usize,
    of: PhantomData<T>,
}

impl<T: bytemuck::Zeroable + Copy> SharedBuf<T> {
    /// `len` zeros, or `None` when the system has no room. The pages are taken only when touched.
    pub(crate) fn zeroed(len: usize) -> Option<Self> {
        let bytes = len.checked_mul(size_of::<T>())?;
        let map = memory(bytes.max(1)).ok()?;
        Some(SharedBuf { map, len, of: PhantomData })
    }

    /// Number of elements.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    fn cells(&self) -> &[UnsafeCell<T>] {
        // SAFETY: the mapping has so many, on a boundary of any `T`: a page's. Zeros are a valid `T` (Zeroable),
        // and `UnsafeCell<T>` has the layout of `T`.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast(), self.len) }
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
        if let Some(cells) = self.cells().get(r) {
            quant::kernels::ask_to_write(cells);
        }
    }

    /// Where a range is: not for reading.
    pub(crate) fn place(&self, r: Range<usize>) -> *const [T] {
        let cells = &self.cells()[r];
        std::ptr::slice_from_raw_parts(cells.as_ptr().cast(), cells.len())
    }

    /// # Safety
    /// No thread writes this range before the next barrier.
    #[inline]
    pub(crate) unsafe fn read(&self, r: Range<usize>) -> &[T] {
        let cells = &self.cells()[r];
        // SAFETY: the cells were bounds-checked; nobody writes them while the slice lives.
        unsafe { std::slice::from_raw_parts(cells.as_ptr().cast::<T>(), cells.len()) }
    }

    /// # Safety
    /// No other thread reads or writes this range before the next barrier, and the caller holds no
    /// other slice of it.
    #[inline]
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn write(&self, r: Range<usize>) -> &mut [T] {
        let cells = &self.cells()[r];
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
