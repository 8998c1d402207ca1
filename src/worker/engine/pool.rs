//! The receive buffers of one worker: a fixed number, shared by all its sockets, so that an idle socket holds none.
//!
//! Invariant: a buffer belongs to exactly one of the kernel (it lies in the provided-buffer ring), the free stack, or a
//! live [`Chunk`]. A chunk gives its buffer back when it is dropped, whoever holds it then, also after the engine has
//! gone: it keeps the pool alive. That is why the parser may unmask in place, and may call the engine meanwhile.
//!
//! Why two ways home: io_uring takes buffers from a ring in memory that the kernel reads; epoll receives into the
//! buffer that was used last, which is still in the cache. Sizes are bytes.
//! Source: io_uring_register_buf_ring(3).

use super::BufferSizes;
use io_uring::types::BufRingEntry;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::{Cell, RefCell};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

/// Alignment of the memory: a page, as the kernel wants it of the ring. Untouched pages cost nothing.
const PAGE_BYTES: usize = 4096;

/// Received bytes, exclusively held, to be changed in place. Dropping it gives the buffer back at once: keep it no
/// longer than the parser needs, and copy what must wait.
pub struct Chunk {
    pool: Rc<Pool>,
    buffer: u16,
    bytes: u32,
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the buffer is ours alone until drop, lies inside the pool's memory, which `self.pool` keeps alive, is
        // initialised (zeroed, then written by the kernel), and `bytes` is at most its size.
        unsafe { std::slice::from_raw_parts(self.pool.address(self.buffer), self.bytes as usize) }
    }
}

impl DerefMut for Chunk {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above; `&mut self` excludes any other slice of it.
        unsafe { std::slice::from_raw_parts_mut(self.pool.address(self.buffer), self.bytes as usize) }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.pool.give_back(self.buffer);
    }
}

impl std::fmt::Debug for Chunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Chunk({} bytes)", self.bytes)
    }
}

/// All buffers, and where the free ones are.
pub(super) struct Pool {
    memory: Allocation,
    sizes: BufferSizes,
    home: Home,
    /// Chunks alive.
    held: Cell<u16>,
}

/// Where a buffer goes when it is given back.
enum Home {
    /// The ring that the kernel takes from.
    Ring { entries: Allocation, tail: Cell<u16> },
    /// Last in, first out.
    Stack(RefCell<Vec<u16>>),
}

impl Pool {
    /// A pool whose buffers are handed to the kernel through a ring; see [`Pool::ring_address`].
    pub(super) fn ring(sizes: BufferSizes) -> Rc<Pool> {
        let entries = Allocation::new(usize::from(sizes.buffers) * size_of::<BufRingEntry>());
        let pool = Pool::new(sizes, Home::Ring { entries, tail: Cell::new(0) });
        for buffer in 0..sizes.buffers {
            pool.offer(buffer);
        }
        Rc::new(pool)
    }

    /// A pool from which [`Pool::take`] takes.
    pub(super) fn stack(sizes: BufferSizes) -> Rc<Pool> {
        let free = (0..sizes.buffers).rev().collect();
        Rc::new(Pool::new(sizes, Home::Stack(RefCell::new(free))))
    }

    fn new(sizes: BufferSizes, home: Home) -> Pool {
        assert!(sizes.buffers.is_power_of_two() && sizes.buffers <= 1 << 15, "the kernel's rule for a buffer ring");
        assert!(sizes.buffer_bytes > 0, "an empty buffer receives nothing");
        let memory = Allocation::new(usize::from(sizes.buffers) * sizes.buffer_bytes as usize);
        Pool { memory, sizes, home, held: Cell::new(0) }
    }

    /// Address of the ring for its registration; 0 for a stack.
    pub(super) fn ring_address(&self) -> u64 {
        match &self.home {
            Home::Ring { entries, .. } => entries.start.as_ptr() as u64,
            Home::Stack(_) => 0,
        }
    }

    /// Buffers that no chunk holds. In a ring some of them may be filled and not yet reaped.
    pub(super) fn unheld(&self) -> usize {
        usize::from(self.sizes.buffers - self.held.get())
    }

    /// The chunk for a buffer that the kernel has filled with `bytes`. `None` if the kernel named a buffer that does
    /// not exist.
    ///
    /// # Safety
    /// The kernel has just given this buffer to us and has not been given it back since.
    pub(super) unsafe fn filled(self: &Rc<Pool>, buffer: u16, bytes: u32) -> Option<Chunk> {
        if buffer >= self.sizes.buffers {
            return None;
        }
        self.held.set(self.held.get() + 1);
        Some(Chunk { pool: Rc::clone(self), buffer, bytes: bytes.min(self.sizes.buffer_bytes) })
    }

    /// A free buffer of its full size, to be received into and then cut with [`Chunk::truncate`]. `None`: all are held.
    pub(super) fn take(self: &Rc<Pool>) -> Option<Chunk> {
        let Home::Stack(free) = &self.home else { return None };
        let buffer = free.borrow_mut().pop()?;
        self.held.set(self.held.get() + 1);
        Some(Chunk { pool: Rc::clone(self), buffer, bytes: self.sizes.buffer_bytes })
    }

    fn give_back(&self, buffer: u16) {
        self.held.set(self.held.get() - 1);
        match &self.home {
            Home::Ring { .. } => self.offer(buffer),
            Home::Stack(free) => free.borrow_mut().push(buffer),
        }
    }

    /// Puts a buffer at the tail of the kernel's ring.
    fn offer(&self, buffer: u16) {
        let Home::Ring { entries, tail } = &self.home else { return };
        let position = tail.get();
        let first = entries.start.as_ptr().cast::<BufRingEntry>();
        // SAFETY: the mask keeps the index inside `entries`. At most `buffers` buffers exist and each is in one place,
        // so the entry at the tail is not one that the kernel may still read. The tail shares memory with the reserved
        // field of entry 0, which the three setters leave alone; it is 2-aligned and only we write it.
        unsafe {
            let entry = &mut *first.add(usize::from(position & (self.sizes.buffers - 1)));
            entry.set_addr(self.address(buffer) as u64);
            entry.set_len(self.sizes.buffer_bytes);
            entry.set_bid(buffer);
            let shared_tail = BufRingEntry::tail(first).cast_mut();
            AtomicU16::from_ptr(shared_tail).store(position.wrapping_add(1), Ordering::Release);
        }
        tail.set(position.wrapping_add(1));
    }

    fn address(&self, buffer: u16) -> *mut u8 {
        // SAFETY: `buffer` is below `sizes.buffers` wherever it comes from, so the offset stays inside the allocation.
        unsafe { self.memory.start.as_ptr().add(usize::from(buffer) * self.sizes.buffer_bytes as usize) }
    }
}

impl Chunk {
    /// Keeps the first `bytes` of it.
    pub(super) fn truncate(&mut self, bytes: usize) {
        self.bytes = self.bytes.min(u32::try_from(bytes).unwrap_or(u32::MAX));
    }
}

/// Zeroed memory that starts at a page.
struct Allocation {
    start: NonNull<u8>,
    layout: Layout,
}

impl Allocation {
    fn new(bytes: usize) -> Allocation {
        let layout = Layout::from_size_align(bytes, PAGE_BYTES).expect("bounded by the sizes above");
        assert!(layout.size() > 0, "see Pool::new");
        // SAFETY: the size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Allocation { start, layout }
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, freed once.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}
