//! Completions of a queue pair: taken by polling, told of by a channel.

use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::Arc;

use rdma_sys as sys;
use roadstead_ring::IoBuf;

use crate::channel::as_context;
use crate::completion_channel::CompletionChannel;
use crate::domain::MemoryRegion;
use crate::error::{VerbsError, check_number, last};
use crate::ledger::{Finished, WorkStatus};
use crate::queue_pair::QueuePair;
use crate::receives::{RECEIVE, SharedReceives};

/// Completions taken in one go.
const POLL_BATCH: usize = 32;

/// A message that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// The slot of the shared receives, to be given back.
    pub slot: u32,
    /// Bytes; 0 when it did not come whole.
    pub length: u32,
    /// How it came.
    pub status: WorkStatus,
    /// The key that the other end has invalidated with it.
    pub invalidated_key: Option<u32>,
}

/// A completion queue, and what it needs.
pub(crate) struct RawCompletions {
    raw: NonNull<sys::ibv_cq>,
    channel: CompletionChannel,
    pub(crate) region: Arc<MemoryRegion>,
}

impl Drop for RawCompletions {
    fn drop(&mut self) {
        let verbs = &self.region.domain().device().api.verbs;
        // SAFETY: the queue pair on it is gone; all its events are acknowledged.
        let _ = unsafe { (verbs.ibv_destroy_cq)(self.raw.as_ptr()) };
    }
}

impl RawCompletions {
    /// A queue of so many completions; its events carry the token.
    pub(crate) fn new(
        region: &Arc<MemoryRegion>,
        channel: &CompletionChannel,
        entries: u32,
        token: u64,
    ) -> Result<Self, VerbsError> {
        let device = region.domain().device();
        let create = device.api.verbs.ibv_create_cq;
        let (context, channel_raw) = (device.context.as_ptr(), channel.as_ptr());
        let count = i32::try_from(entries).unwrap_or(i32::MAX);
        // SAFETY: the device is open and the channel, which is of it, alive, and kept.
        let raw = unsafe { create(context, count, as_context(token), channel_raw, 0) };
        let raw = NonNull::new(raw).ok_or_else(|| last("make a completion queue"))?;
        Ok(Self {
            raw,
            channel: channel.clone(),
            region: Arc::clone(region),
        })
    }

    pub(crate) fn as_ptr(&self) -> *mut sys::ibv_cq {
        self.raw.as_ptr()
    }
}

impl QueuePair {
    /// Takes completions: messages that came, and work that ended. Returns how many there were; as many as fit one
    /// call at most.
    ///
    /// # Errors
    /// [`VerbsError::Call`]. [`VerbsError::Foreign`]: the receives are not those that it was made with.
    pub fn poll(
        &mut self,
        receives: &mut SharedReceives,
        received: &mut Vec<Received>,
        finished: &mut Vec<Finished<IoBuf>>,
    ) -> Result<usize, VerbsError> {
        if !receives.is(&self.receives) {
            // It would take slots of others for this one's.
            let what = "the shared receive queue";
            return Err(VerbsError::Foreign { what });
        }
        let mut batch = [const { MaybeUninit::<sys::ibv_wc>::uninit() }; POLL_BATCH];
        let count = i32::try_from(POLL_BATCH).unwrap_or(1);
        let queue = self.completions.raw.as_ptr();
        // SAFETY: the queue is alive, and there is room for so many completions.
        let count = unsafe { sys::ibv_poll_cq(queue, count, batch.as_mut_ptr().cast()) };
        self.counts.polls += 1;
        let Ok(count) = usize::try_from(count) else {
            return Err(last("take completions"));
        };
        for completion in batch.iter().take(count) {
            let completion = completion.as_ptr();
            // SAFETY: the call has filled in so many, and these fields of each, whatever happened.
            let (number, status) = unsafe { ((*completion).wr_id, (*completion).status) };
            let status = WorkStatus(status);
            if number & RECEIVE == 0 {
                self.counts.completions += 1;
                self.ledger.completed(number, status, finished);
                continue;
            }
            self.counts.messages += 1;
            let slot = u32::try_from(number & !RECEIVE).unwrap_or(u32::MAX);
            receives.take(slot);
            let mut one = Received {
                slot,
                length: 0,
                status,
                invalidated_key: None,
            };
            if status.is_success() {
                // SAFETY: these are filled in for what succeeded; the flag says which field of the union it is.
                unsafe {
                    one.length = (*completion).byte_len;
                    if (*completion).wc_flags & sys::ibv_wc_flags::IBV_WC_WITH_INV.0 != 0 {
                        let key = (*completion)
                            .imm_data_invalidated_rkey_union
                            .invalidated_rkey;
                        one.invalidated_key = Some(key);
                    }
                }
            }
            received.push(one);
        }
        Ok(count)
    }

    /// Has the completion channel tell of the next completion. Look with [`Self::poll`] once more after it: what came
    /// before is not told.
    ///
    /// # Errors
    /// [`VerbsError::Call`].
    pub fn arm(&mut self) -> Result<(), VerbsError> {
        // SAFETY: the queue is alive.
        let result = unsafe { sys::ibv_req_notify_cq(self.completions.raw.as_ptr(), 0) };
        check_number(result, "ask to be told of completions")
    }

    /// The channel that tells.
    pub fn channel(&self) -> &CompletionChannel {
        &self.completions.channel
    }
}
