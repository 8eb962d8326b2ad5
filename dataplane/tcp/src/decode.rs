//! Whole heads to typed PDUs.

use zerocopy::FromBytes;

use crate::pdu::{
    ALIGNMENT_MAX, C2hData, CommandWire, DIGEST_DATA, DIGEST_HEADER, H2cData, IcReq, IcResp,
    IcWire, MAX_DATA_MIN, Pdu, R2t, ResponseWire, TermReq, TermWire, TransferWire, flag, kind,
    offset,
};
use crate::reader::Shape;
use crate::{Fatal, FatalStatus};

/// Reads the start of a head as `T`.
fn read<T: FromBytes>(head: &[u8]) -> Result<T, Fatal> {
    T::read_from_prefix(head)
        .map(|(wire, _)| wire)
        .map_err(|_| {
            Fatal::new(
                FatalStatus::INVALID_HEADER_FIELD,
                offset::HLEN,
                "header is too short",
                head,
            )
        })
}

pub(crate) fn decode(shape: &Shape, head: &[u8]) -> Result<Pdu, Fatal> {
    let invalid = |offset, what| Fatal::new(FatalStatus::INVALID_HEADER_FIELD, offset, what, head);
    match shape.common.kind {
        kind::CAPSULE_CMD => Ok(Pdu::CapsuleCmd {
            sqe: read::<CommandWire>(head)?.sqe,
            data_length: shape.data,
        }),
        kind::CAPSULE_RESP => Ok(Pdu::CapsuleResp(read::<ResponseWire>(head)?.cqe)),
        kind::IC_REQ => {
            let wire: IcWire = read(head)?;
            check_ic(&wire, head)?;
            Ok(Pdu::IcReq(IcReq {
                version: wire.version.get(),
                alignment: wire.alignment,
                header_digest: wire.digests & DIGEST_HEADER != 0,
                data_digest: wire.digests & DIGEST_DATA != 0,
                max_r2t: u64::from(wire.limit.get()) + 1,
            }))
        }
        kind::IC_RESP => {
            let wire: IcWire = read(head)?;
            check_ic(&wire, head)?;
            let max_data = wire.limit.get();
            if max_data < MAX_DATA_MIN || !max_data.is_multiple_of(4) {
                return Err(invalid(
                    offset::MAX_DATA,
                    "limit of data is too small or odd",
                ));
            }
            Ok(Pdu::IcResp(IcResp {
                version: wire.version.get(),
                alignment: wire.alignment,
                header_digest: wire.digests & DIGEST_HEADER != 0,
                data_digest: wire.digests & DIGEST_DATA != 0,
                max_data,
            }))
        }
        kind::H2C_TERM_REQ => Ok(Pdu::H2cTermReq(term(head)?)),
        kind::C2H_TERM_REQ => Ok(Pdu::C2hTermReq(term(head)?)),
        _ => transfer(shape, head, &invalid),
    }
}

fn check_ic(wire: &IcWire, head: &[u8]) -> Result<(), Fatal> {
    if wire.alignment > ALIGNMENT_MAX {
        let what = "alignment is above 128 bytes";
        return Err(Fatal::new(
            FatalStatus::INVALID_HEADER_FIELD,
            offset::ALIGNMENT,
            what,
            head,
        ));
    }
    Ok(())
}

fn term(head: &[u8]) -> Result<TermReq, Fatal> {
    let wire: TermWire = read(head)?;
    Ok(TermReq {
        status: FatalStatus(wire.status.get()),
        information: wire.information.get(),
    })
}

/// H2CData, C2HData, R2T.
fn transfer(
    shape: &Shape,
    head: &[u8],
    invalid: &impl Fn(u32, &'static str) -> Fatal,
) -> Result<Pdu, Fatal> {
    let wire: TransferWire = read(head)?;
    let (cid, tag) = (wire.cid.get(), wire.tag.get());
    let (start, length) = (wire.offset.get(), wire.length.get());
    let is_r2t = shape.common.kind == kind::R2T;
    if length == 0 || !length.is_multiple_of(4) || (!is_r2t && length != shape.data) {
        return Err(invalid(
            offset::DATA_LENGTH,
            "data length is zero, odd or not the PDU's",
        ));
    }
    if !start.is_multiple_of(4) || start.checked_add(length).is_none() {
        return Err(invalid(
            offset::DATA_OFFSET,
            "data offset is odd or too large",
        ));
    }
    let last = shape.common.flags & flag::LAST != 0;
    match shape.common.kind {
        kind::H2C_DATA => Ok(Pdu::H2cData(H2cData {
            cid,
            tag,
            offset: start,
            length,
            last,
        })),
        kind::C2H_DATA => {
            let success = shape.common.flags & flag::SUCCESS != 0;
            if success && !last {
                return Err(invalid(offset::FLAGS, "success flag before the last data"));
            }
            Ok(Pdu::C2hData(C2hData {
                cid,
                offset: start,
                length,
                last,
                success,
            }))
        }
        _ => Ok(Pdu::R2t(R2t {
            cid,
            tag,
            offset: start,
            length,
        })),
    }
}
