//! What goes out.

use roadstead_tcp::Pdu;
use roadstead_tcp::pdu::{C2hData, R2t};

use super::{Connection, Output};
use crate::queue::{Completion, Tag};

impl<B: AsRef<[u8]> + AsMut<[u8]>> Connection<B> {
    pub(super) fn send<O: Output<B>>(&mut self, pdu: &Pdu, out: &mut O) {
        let length = self.writer.head(pdu, &mut self.head);
        out.bytes(self.head.get(..length).unwrap_or(&self.head));
    }

    /// Asks for all data of a command.
    pub(super) fn ask<O: Output<B>>(&mut self, tag: Tag, cid: u16, length: u32, out: &mut O) {
        self.asked += 1;
        self.send(
            &Pdu::R2t(R2t {
                cid,
                tag: tag.0,
                offset: 0,
                length,
            }),
            out,
        );
    }

    /// The head of the data of a command that succeeded with this result. True when nothing follows the data.
    pub(super) fn data_head(&self, cid: u16, length: u32, result: u64) -> (Pdu, bool) {
        // Without a response capsule the host would not learn the queue's head.
        let success = result == 0 && !self.queue.has_flow_control();
        (
            Pdu::C2hData(C2hData {
                cid,
                offset: 0,
                length,
                last: true,
                success,
            }),
            success,
        )
    }

    /// Data and success.
    pub(super) fn reply<O: Output<B>>(
        &mut self,
        tag: Tag,
        cid: u16,
        data: &[u8],
        result: u64,
        out: &mut O,
    ) {
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let (head, success) = self.data_head(cid, length, result);
        self.send(&head, out);
        out.bytes(data);
        if let Some(digest) = self.writer.data_digest(data) {
            out.bytes(&digest);
        }
        self.finish_data(tag, cid, success, Completion::result(result), out);
    }

    /// What a buffer holds, and success.
    pub(super) fn reply_buffer<O: Output<B>>(
        &mut self,
        tag: Tag,
        cid: u16,
        buffer: B,
        length: u32,
        out: &mut O,
    ) {
        let (head, success) = self.data_head(cid, length, 0);
        self.send(&head, out);
        let bytes = usize::try_from(length)
            .unwrap_or(usize::MAX)
            .min(buffer.as_ref().len());
        let digest = buffer
            .as_ref()
            .get(..bytes)
            .and_then(|data| self.writer.data_digest(data));
        out.buffer(buffer, bytes);
        if let Some(digest) = digest {
            out.bytes(&digest);
        }
        self.finish_data(tag, cid, success, Completion::SUCCESS, out);
    }

    /// The command whose data went out is complete.
    pub(super) fn finish_data<O: Output<B>>(
        &mut self,
        tag: Tag,
        cid: u16,
        success: bool,
        completion: Completion,
        out: &mut O,
    ) {
        if success {
            self.slots.release(tag);
            self.queue.count_completion();
        } else {
            self.complete_command(tag, cid, completion, out);
        }
    }
}
