//! What waits to be sent to one connection, and how it is gathered into writes.
//!
//! A socket write costs about the same whether it carries one event or sixty-four, so the only large lever is fewer,
//! larger writes: everything that waits goes into one write, and while a write is under way the next one gathers. The
//! subscribers of a pipe mostly have the same frames waiting; such a run is copied together once and shared by all.
//!
//! A delivery is one reference in a queue: no copy, no allocation, no reference count that crosses cores. An idle
//! connection has no queue, only the eight bytes that would lead to it: emptied queues go back to a pool.
//!
//! Bound: `limits.queue_bytes` for each connection, counted in bytes as they go out. When full, by configuration: the
//! connection is closed as too slow, or its oldest *events* are left out and it is told how many (`lagged`, before the
//! next event of that pipe). Replies and system messages are never left out.

use std::collections::VecDeque;
use std::rc::Rc;

use super::frames::{Chunk, Frame, KEPT, Meter, Run};
use crate::bounds::WRITE_BYTES_MAX;
use crate::config::WhenSlow;
use crate::protocol::encode;

/// Events of one pipe that were left out and not yet told.
struct Lag {
    pipe: u64,
    dropped: u32,
    /// Before which frame of the queue the last of them stood.
    place: usize,
    /// The pipe's name, for the pipe may be gone when it is told.
    name: Box<str>,
}

/// What waits for one connection. None: nothing waits, nothing is under way, and it is not its turn.
#[derive(Default)]
pub struct Outbox(Option<Box<Queue>>);

#[derive(Default)]
struct Queue {
    frames: VecDeque<Rc<Frame>>,
    waiting_bytes: usize,
    lags: Vec<Lag>,
    sending_bytes: u32,
    sending: bool,
    /// It is in the worker's list of connections to flush.
    dirty: bool,
    /// Much waits, and it was not yet given a write.
    pressed: bool,
    /// Something that may not be left out found no room: the connection is about to be closed, and whatever came after it
    /// would follow a gap.
    overflowed: bool,
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It waits in the queue.
    Queued,
    /// It waits, and so many older events were left out for it.
    Dropped(u32),
    /// It was left out itself, and so were that many in all.
    LeftOut(u32),
    /// There is no room and none can be made: close the connection.
    TooSlow,
}

/// What all queues of a worker share: spare queues, and the run that was copied last.
#[derive(Default)]
pub struct Gatherer {
    #[expect(clippy::vec_box, reason = "it is the boxes that are kept")]
    spare: Vec<Box<Queue>>,
    run_frames: Vec<Rc<Frame>>,
    run: Option<Rc<Run>>,
    /// Meter of the worker's frames and runs.
    pub meter: Meter,
    /// Writes that reused a run that was already copied together.
    pub runs_shared: u64,
    /// Runs copied together.
    pub runs_copied: u64,
}

/// Queues kept for reuse, and the largest kept, in frames. Beyond that they are freed.
const SPARE_QUEUES_MAX: usize = 4096;
const SPARE_FRAMES_MAX: usize = 64;

impl Outbox {
    /// Bytes waiting or being written.
    pub fn queued_bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |queue| queue.queued_bytes())
    }

    /// Whether everything was handed to the kernel.
    pub fn is_drained(&self) -> bool {
        self.0.as_ref().is_none_or(|queue| queue.frames.is_empty() && !queue.sending)
    }

    /// Whether there is something for the next write: a frame, or a loss that was not yet told.
    pub fn has_more(&self) -> bool {
        self.0.as_ref().is_some_and(|queue| !queue.frames.is_empty() || !queue.lags.is_empty())
    }

    /// Whether it must be given a turn: no write is under way, and it is not in the list of those who have one. From now on
    /// it is.
    #[inline]
    pub fn needs_turn(&mut self, pool: &mut Gatherer) -> bool {
        let queue = self.queue(pool);
        !queue.sending && !std::mem::replace(&mut queue.dirty, true)
    }

    /// Whether so much waits for a turn that it must come soon, said once.
    #[inline]
    pub fn presses(&mut self, pressed_bytes: usize) -> bool {
        self.0.as_mut().is_some_and(|queue| {
            let presses = queue.dirty && !queue.pressed && queue.queued_bytes() >= pressed_bytes;
            queue.pressed |= presses;
            presses
        })
    }

    /// Its turn has come. Whether it pressed for it.
    pub fn take_turn(&mut self) -> bool {
        let Some(queue) = &mut self.0 else { return false };
        queue.dirty = false;
        std::mem::take(&mut queue.pressed)
    }

    /// Queues a frame. `limit_bytes` 0 is no limit.
    #[inline]
    pub fn push(&mut self, frame: Rc<Frame>, limit_bytes: usize, when_slow: WhenSlow, pool: &mut Gatherer) -> Pushed {
        let queue = self.queue(pool);
        let length = frame.bytes().len();
        let mut outcome = Pushed::Queued;
        if queue.overflowed {
            return Pushed::TooSlow;
        }
        if limit_bytes != 0 && queue.queued_bytes() + length > limit_bytes {
            outcome = queue.make_room(length, limit_bytes, when_slow, &frame);
            queue.overflowed = outcome == Pushed::TooSlow;
            match outcome {
                Pushed::TooSlow | Pushed::LeftOut(_) => return outcome,
                _ => {}
            }
        }
        queue.push(frame);
        outcome
    }

    /// Queues a frame whatever the limit: for the close frame, which ends the queue.
    pub fn push_last(&mut self, frame: Rc<Frame>, pool: &mut Gatherer) {
        self.queue(pool).push(frame);
    }

    /// Forgets everything that was not handed to the kernel.
    pub fn clear(&mut self, pool: &mut Gatherer) {
        if let Some(queue) = &mut self.0 {
            queue.frames.clear();
            queue.waiting_bytes = 0;
            queue.lags.clear();
            queue.overflowed = false;
            self.rest(pool);
        }
    }

    /// Forgets every message that was not handed to the kernel.
    pub fn clear_messages(&mut self) {
        if let Some(queue) = &mut self.0 {
            queue.lags.clear();
            queue.forget(|frame| frame.pipe != KEPT);
        }
    }

    /// Forgets the events and presence frames of every pipe whose name is among these that were not handed to the kernel,
    /// and what would be told of those left out. By name, because between two subscriptions of a connection a pipe may
    /// have got another serial number.
    pub fn purge_named(&mut self, among: impl Fn(&str) -> bool) {
        if let Some(queue) = &mut self.0 {
            queue.lags.retain(|lag| !among(&lag.name));
            queue.forget(|frame| frame.pipe & !KEPT != 0 && among(&encode::pipe_of(frame.bytes())));
        }
    }

    /// Forgets the presence frames of one pipe that were not handed to the kernel.
    pub fn purge_presence(&mut self, pipe: u64) {
        if let Some(queue) = &mut self.0 {
            queue.forget(|frame| frame.pipe == pipe | KEPT);
        }
    }

    /// A write ended.
    pub fn sent(&mut self, pool: &mut Gatherer) {
        if let Some(queue) = &mut self.0 {
            queue.sending = false;
            queue.sending_bytes = 0;
            self.rest(pool);
        }
    }

    /// Counts events of a pipe (its serial number, its name) that were left out before they came to this queue: told before
    /// whatever is queued next.
    pub fn note_left_out(&mut self, pipe: u64, name: &str, events: u32, pool: &mut Gatherer) {
        let queue = self.queue(pool);
        if !queue.overflowed {
            queue.lag_of(pipe, queue.frames.len(), events, || name.into());
        }
    }

    /// Takes the next write, or nothing: the queue is empty or a write is under way.
    pub fn gather(&mut self, pool: &mut Gatherer) -> Option<Chunk> {
        let chunk = self.0.as_mut().and_then(|queue| queue.gather(pool));
        if chunk.is_none() {
            self.rest(pool);
        }
        chunk
    }

    #[inline]
    fn queue(&mut self, pool: &mut Gatherer) -> &mut Queue {
        self.0.get_or_insert_with(|| pool.spare.pop().unwrap_or_default())
    }

    /// Gives the queue back if nothing is left to do with it.
    #[inline]
    fn rest(&mut self, pool: &mut Gatherer) {
        let idle = |queue: &mut Box<Queue>| {
            let has_something = !queue.frames.is_empty() || !queue.lags.is_empty();
            !(has_something || queue.sending || queue.dirty || queue.overflowed)
        };
        if let Some(queue) = self.0.take_if(idle) {
            pool.give_back(queue);
        }
    }
}

impl Queue {
    fn queued_bytes(&self) -> usize {
        self.waiting_bytes + self.sending_bytes as usize
    }

    #[inline]
    fn push(&mut self, frame: Rc<Frame>) {
        self.waiting_bytes += frame.bytes().len();
        self.frames.push_back(frame);
    }

    fn forget(&mut self, gone: impl Fn(&Frame) -> bool) {
        if self.frames.is_empty() {
            return;
        }
        // Losses stand before a frame of the queue; that frame moves up by what goes before it.
        for lag in &mut self.lags {
            lag.place -= self.frames.iter().take(lag.place).filter(|frame| gone(frame)).count();
        }
        self.frames.retain(|frame| !gone(frame));
        self.waiting_bytes = self.frames.iter().map(|frame| frame.bytes().len()).sum();
    }

    #[cold]
    fn make_room(&mut self, length: usize, limit_bytes: usize, when_slow: WhenSlow, frame: &Rc<Frame>) -> Pushed {
        if when_slow == WhenSlow::Close {
            return Pushed::TooSlow;
        }
        let mut dropped = 0;
        while self.queued_bytes() + length > limit_bytes {
            let Some(oldest) = self.frames.iter().position(|queued| queued.is_event()) else { break };
            if let Some(left_out) = self.frames.remove(oldest) {
                self.waiting_bytes -= left_out.bytes().len();
                let behind = self.lags.iter_mut().filter(|lag| lag.place > oldest);
                behind.for_each(|lag| lag.place -= 1);
                self.note_lag(&left_out, oldest);
                dropped += 1;
            }
        }
        if self.queued_bytes() + length > limit_bytes {
            // Only replies wait, or one write is under way. An event is left out itself; a reply never is.
            if !frame.is_event() {
                return Pushed::TooSlow;
            }
            self.note_lag(frame, self.frames.len());
            return Pushed::LeftOut(dropped + 1);
        }
        Pushed::Dropped(dropped)
    }

    /// Counts a frame that was left out at this place of the queue, from which it is gone already. Places only grow
    /// until they are told, because whatever is left out is the first event of the queue.
    fn note_lag(&mut self, frame: &Frame, place: usize) {
        self.lag_of(frame.pipe, place, 1, || encode::pipe_of(frame.bytes()).into());
    }

    fn lag_of(&mut self, pipe: u64, place: usize, events: u32, name: impl FnOnce() -> Box<str>) {
        if let Some(lag) = self.lags.iter_mut().find(|lag| lag.pipe == pipe) {
            lag.dropped += events;
            lag.place = place;
        } else {
            self.lags.push(Lag { pipe, dropped: events, place, name: name() });
        }
    }

    /// Puts what was left out into words, each where it stood: before the next event of its pipe, because the oldest go
    /// first, and before whatever was queued later, such as the reply to an unsubscribe or a close frame.
    #[cold]
    fn tell_lags(&mut self, meter: &Meter) {
        let mut lags = std::mem::take(&mut self.lags);
        lags.sort_by_key(|lag| lag.place);
        let mut lags = lags.iter().peekable();
        let mut told = VecDeque::with_capacity(self.frames.len() + lags.len());
        for (place, frame) in self.frames.drain(..).enumerate() {
            while let Some(lag) = lags.next_if(|lag| lag.place <= place) {
                told.push_back(lag_frame(lag, meter));
            }
            told.push_back(frame);
        }
        told.extend(lags.map(|lag| lag_frame(lag, meter)));
        self.waiting_bytes = told.iter().map(|frame| frame.bytes().len()).sum();
        self.frames = told;
    }

    fn gather(&mut self, pool: &mut Gatherer) -> Option<Chunk> {
        if self.sending {
            return None;
        }
        if !self.lags.is_empty() {
            self.tell_lags(&pool.meter);
        }
        let first_bytes = self.frames.front()?.bytes().len();
        let (mut count, mut bytes) = (1, first_bytes);
        for frame in self.frames.iter().skip(1) {
            if bytes + frame.bytes().len() > WRITE_BYTES_MAX {
                break;
            }
            bytes += frame.bytes().len();
            count += 1;
        }
        let chunk =
            if count == 1 { Chunk::Frame(self.frames.pop_front()?) } else { Chunk::Run(self.run(count, bytes, pool)) };
        self.waiting_bytes -= bytes;
        self.sending_bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.sending = true;
        Some(chunk)
    }

    /// The first `count` frames as one run: the last one again where the frames are the same.
    fn run(&mut self, count: usize, bytes: usize, pool: &mut Gatherer) -> Rc<Run> {
        let same = pool.run_frames.len() == count
            && pool.run_frames.iter().zip(&self.frames).all(|(one, other)| Rc::ptr_eq(one, other));
        if same && let Some(run) = &pool.run {
            self.frames.drain(..count);
            pool.runs_shared += 1;
            return run.clone();
        }
        let mut copied = Vec::with_capacity(bytes);
        pool.run_frames.clear();
        for frame in self.frames.drain(..count) {
            copied.extend_from_slice(frame.bytes());
            pool.run_frames.push(frame);
        }
        let run = Run::new(copied, &pool.meter);
        pool.run = Some(run.clone());
        pool.runs_copied += 1;
        run
    }
}

impl Gatherer {
    /// Forgets the last run: called when a round of writes is over, so that it holds no memory while idle.
    pub fn end_round(&mut self) {
        self.run_frames.clear();
        self.run = None;
    }

    /// Takes a queue that nothing is left to do with.
    fn give_back(&mut self, queue: Box<Queue>) {
        if queue.frames.capacity() <= SPARE_FRAMES_MAX && self.spare.len() < SPARE_QUEUES_MAX {
            self.spare.push(queue);
        }
    }
}

fn lag_frame(lag: &Lag, meter: &Meter) -> Rc<Frame> {
    Frame::other(encode::framed(|out| encode::lagged(out, &lag.name, lag.dropped.into())), meter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(pipe: u64, name: &str, number: usize, meter: &Meter) -> Rc<Frame> {
        let data = number.to_string();
        let bytes = encode::event_frame(name, "e", &data, encode::Sender::Application, 1);
        Frame::event(bytes.into(), pipe, meter)
    }

    /// The text messages of a write, in order.
    fn texts(chunk: &Chunk) -> Vec<String> {
        let mut rest = chunk.as_ref();
        let mut texts = Vec::new();
        while !rest.is_empty() {
            let (header, length) = match rest[1] {
                126 => (4, usize::from(u16::from_be_bytes([rest[2], rest[3]]))),
                short => (2, usize::from(short)),
            };
            texts.push(String::from_utf8_lossy(&rest[header..header + length]).into_owned());
            rest = &rest[header + length..];
        }
        texts
    }

    fn queue(outbox: &Outbox) -> &Queue {
        outbox.0.as_ref().expect("a queue")
    }

    fn frames(outbox: &Outbox) -> &VecDeque<Rc<Frame>> {
        &queue(outbox).frames
    }

    #[test]
    fn whoever_has_nothing_to_be_sent_has_no_queue() {
        let mut pool = Gatherer::default();
        let mut outbox = Outbox::default();
        assert_eq!(size_of::<Outbox>(), 8);
        assert!(!outbox.take_turn() && !outbox.presses(0) && outbox.gather(&mut pool).is_none());
        for round in 0..3 {
            outbox.push(event(1, "a", round, &pool.meter), 0, WhenSlow::Close, &mut pool);
            assert!(outbox.needs_turn(&mut pool) && !outbox.needs_turn(&mut pool), "once");
            assert!(outbox.presses(1) && !outbox.presses(1), "once");
            assert!(outbox.take_turn());
            assert!(outbox.gather(&mut pool).is_some());
            assert!(!outbox.needs_turn(&mut pool), "a write is under way");
            outbox.sent(&mut pool);
            assert!(outbox.0.is_none());
            assert_eq!(pool.spare.len(), 1);
        }
        // It stays while it is somewhere in the line of turns: a turn is given once, to whoever has the place then.
        outbox.push(event(1, "a", 9, &pool.meter), 0, WhenSlow::Close, &mut pool);
        assert!(outbox.needs_turn(&mut pool));
        outbox.clear(&mut pool);
        outbox.sent(&mut pool);
        assert!(!outbox.needs_turn(&mut pool), "it has one still");
        assert!(!outbox.take_turn() && outbox.gather(&mut pool).is_none());
        assert!(outbox.0.is_none());
    }

    // A reply that found no room is followed by nothing: not even by what would fit, or fits again.
    #[test]
    fn nothing_follows_a_gap_but_the_end() {
        let mut pool = Gatherer::default();
        let mut outbox = Outbox::default();
        let reply = |text: &'static str, pool: &Gatherer| {
            Frame::other(encode::framed(|out| out.extend_from_slice(text.as_bytes())), &pool.meter)
        };
        for when_slow in [WhenSlow::Close, WhenSlow::DropOldest] {
            assert_eq!(outbox.push(reply("first", &pool), 20, when_slow, &mut pool), Pushed::Queued);
            assert_eq!(outbox.push(reply("much too long for it", &pool), 20, when_slow, &mut pool), Pushed::TooSlow);
            assert_eq!(outbox.push(reply("short", &pool), 20, when_slow, &mut pool), Pushed::TooSlow);
            outbox.push_last(reply("end", &pool), &mut pool);
            let chunk = outbox.gather(&mut pool).expect("what fitted, and the end");
            assert_eq!(texts(&chunk), ["first", "end"]);
            outbox.clear(&mut pool);
            outbox.sent(&mut pool);
            assert!(outbox.0.is_none(), "the next one begins anew");
        }
    }

    #[test]
    fn subscribers_with_the_same_frames_share_one_run() {
        let mut pool = Gatherer::default();
        let frames: Vec<_> = (0..3).map(|number| event(1, "a", number, &pool.meter)).collect();
        let mut boxes: Vec<Outbox> = (0..3).map(|_| Outbox::default()).collect();
        for outbox in &mut boxes {
            for frame in &frames {
                assert_eq!(outbox.push(frame.clone(), 0, WhenSlow::Close, &mut pool), Pushed::Queued);
            }
        }
        let chunks: Vec<_> = boxes.iter_mut().filter_map(|outbox| outbox.gather(&mut pool)).collect();
        assert_eq!((chunks.len(), pool.runs_copied, pool.runs_shared), (3, 1, 2));
        assert!(chunks.iter().all(|chunk| texts(chunk).len() == 3));
        assert!(boxes[0].gather(&mut pool).is_none(), "one write under way at a time");
        boxes[0].sent(&mut pool);
        assert!(boxes[0].gather(&mut pool).is_none());
        pool.end_round();
        drop((frames, chunks));
        assert_eq!(pool.meter.bytes(), 0, "nothing is held when all is sent");
    }

    // C33: what goes before it makes no difference to where a loss stood.
    #[test]
    fn what_was_left_out_elsewhere_is_told_before_what_is_queued_then() {
        let mut pool = Gatherer::default();
        let mut outbox = Outbox::default();
        let limit = event(1, "a", 0, &pool.meter).bytes().len() * 2;
        outbox.push(event(2, "b", 0, &pool.meter), limit, WhenSlow::DropOldest, &mut pool);
        outbox.note_left_out(1, "a", 5, &mut pool);
        for number in 1..3 {
            outbox.push(event(1, "a", number, &pool.meter), limit, WhenSlow::DropOldest, &mut pool);
        }
        let told = texts(&outbox.gather(&mut pool).expect("something waits"));
        let places: Vec<bool> = told.iter().map(|text| text.contains("lagged")).collect();
        assert_eq!(places, [true, true, false, false], "{told:?}");
        let whole = |text: &String| text.contains("\"pipe\":\"a\"") && text.contains("\"dropped\":5");
        assert!(told[..2].iter().any(whole), "{told:?}");
    }

    // C33
    #[test]
    fn what_is_left_out_is_counted_for_each_pipe_and_told_before_its_next_event() {
        let mut pool = Gatherer::default();
        let mut outbox = Outbox::default();
        let size = event(1, "a", 0, &pool.meter).bytes().len();
        let limit = size * 4;
        let mut dropped = 0;
        let reply = Frame::other(encode::framed(|out| out.extend_from_slice(b"reply")), &pool.meter);
        let reply_bytes = reply.bytes().len();
        assert_eq!(outbox.push(reply, limit, WhenSlow::DropOldest, &mut pool), Pushed::Queued);
        for number in 0..9 {
            let (pipe, name) = if number % 3 == 0 { (2, "b") } else { (1, "a") };
            match outbox.push(event(pipe, name, number, &pool.meter), limit, WhenSlow::DropOldest, &mut pool) {
                Pushed::Dropped(count) | Pushed::LeftOut(count) => dropped += count,
                other => assert_eq!(other, Pushed::Queued),
            }
            assert!(outbox.queued_bytes() <= limit);
        }
        let kept = (limit - reply_bytes) / size;
        assert_eq!(dropped as usize, 9 - kept);
        let told = texts(&outbox.gather(&mut pool).expect("something waits"));
        assert_eq!(told[0], "reply");
        let lagged =
            |name: &str| told.iter().position(|text| text.contains("lagged") && text.contains(&format!("\"{name}\"")));
        let next = |name: &str| {
            told.iter().position(|text| {
                text.contains("\"event\",\"pipe\":\"") && text.contains(&format!("\"pipe\":\"{name}\",\"event\":\"e\""))
            })
        };
        assert!(lagged("a") < next("a") && lagged("a").is_some(), "{told:?}");
        let sum: u32 = told
            .iter()
            .filter_map(|text| text.split("\"dropped\":").nth(1))
            .filter_map(|rest| rest.trim_end_matches('}').parse::<u32>().ok())
            .sum();
        assert_eq!(sum, dropped, "{told:?}");
    }

    // INVARIANTS 10
    #[test]
    fn presence_frames_are_never_left_out_and_are_purged_with_their_pipe() {
        let mut pool = Gatherer::default();
        let mut outbox = Outbox::default();
        let counts = |name: &str| encode::framed(|out| encode::presence::counts(out, name, (1, 0)));
        // Room for both presence frames and one event.
        let limit = 2 * counts("a").len() + event(1, "a", 0, &pool.meter).bytes().len();
        for (pipe, name) in [(1, "a"), (2, "b")] {
            let frame = Frame::presence(counts(name), pipe, &pool.meter);
            assert_eq!(outbox.push(frame, limit, WhenSlow::DropOldest, &mut pool), Pushed::Queued);
            let frame = event(pipe, name, 0, &pool.meter);
            outbox.push(frame, limit, WhenSlow::DropOldest, &mut pool);
        }
        let kept = |outbox: &Outbox| frames(outbox).iter().filter(|frame| !frame.is_event()).count();
        assert!(!queue(&outbox).lags.is_empty() && kept(&outbox) == 2, "an event went, no presence frame");
        outbox.purge_named(|name| name == "a");
        assert!(frames(&outbox).iter().all(|frame| frame.pipe & !KEPT == 2), "the other pipe's stay");
        assert_eq!(kept(&outbox), 1);
        outbox.purge_presence(2);
        assert!(frames(&outbox).iter().all(|frame| frame.pipe == 2));
        assert_eq!(outbox.queued_bytes(), frames(&outbox).iter().map(|frame| frame.bytes().len()).sum::<usize>());
    }

    #[test]
    fn replies_alone_over_the_limit_close_and_are_never_left_out() {
        let mut pool = Gatherer::default();
        let mut outbox = Outbox::default();
        let reply = |pool: &Gatherer| Frame::other(vec![0u8; 60], &pool.meter);
        let frame = reply(&pool);
        assert_eq!(outbox.push(frame, 100, WhenSlow::DropOldest, &mut pool), Pushed::Queued);
        let big = event(1, "a", 0, &pool.meter);
        assert_eq!(outbox.push(big, 100, WhenSlow::DropOldest, &mut pool), Pushed::LeftOut(1));
        let frame = reply(&pool);
        assert_eq!(outbox.push(frame, 100, WhenSlow::DropOldest, &mut pool), Pushed::TooSlow);
        assert_eq!(outbox.queued_bytes(), 60);
        let mut other = Outbox::default();
        assert_eq!(other.push(event(1, "a", 1, &pool.meter.clone()), 10, WhenSlow::Close, &mut pool), Pushed::TooSlow);
    }

    #[test]
    fn a_write_is_bounded() {
        let mut pool = Gatherer::default();
        let mut outbox = Outbox::default();
        for _ in 0..3 {
            let frame = Frame::other(vec![0u8; WRITE_BYTES_MAX / 2 + 1], &pool.meter);
            outbox.push(frame, 0, WhenSlow::Close, &mut pool);
        }
        let first = outbox.gather(&mut pool).expect("the first");
        assert!(first.as_ref().len() <= WRITE_BYTES_MAX);
        assert_eq!(outbox.queued_bytes(), 3 * (WRITE_BYTES_MAX / 2 + 1));
        outbox.sent(&mut pool);
        assert_eq!(outbox.queued_bytes(), 2 * (WRITE_BYTES_MAX / 2 + 1));
    }
}
