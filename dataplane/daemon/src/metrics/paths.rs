//! Metrics of the paths of attachments.

use roadstead_attach::{Attachment, PathState, PathStatus, Traffic};

use super::Family;

/// A path with its labels.
struct Labelled<'a> {
    attachment: &'a str,
    transport: &'static str,
    portal: String,
    status: &'a PathStatus,
}

fn labelled(attachment: &Attachment) -> impl Iterator<Item = Labelled<'_>> {
    attachment.paths.iter().map(|status| Labelled {
        attachment: &attachment.spec.id,
        transport: status.path.transport.name(),
        portal: status.path.socket_addr().to_string(),
        status,
    })
}

/// What is known of every path. What nobody measures or counts has no sample.
pub(super) fn paths(out: &mut String, attachments: &[Attachment]) {
    let all: Vec<Labelled<'_>> = attachments.iter().flat_map(labelled).collect();
    let mut family = |name, kind, help, value: &dyn Fn(&PathStatus) -> Option<String>| {
        let mut family = Family::new(out, name, kind, help);
        for path in &all {
            let labels = [
                ("attachment", path.attachment),
                ("transport", path.transport),
                ("portal", path.portal.as_str()),
            ];
            if let Some(value) = value(path.status) {
                family.sample(&labels, value);
            }
        }
    };
    family(
        "roadstead_path_up",
        "gauge",
        "Whether the path is connected.",
        &|path| Some(u8::from(path.state == PathState::Live).to_string()),
    );
    family(
        "roadstead_path_round_trip_seconds",
        "gauge",
        "Of small commands lately.",
        &|path| Some(path.round_trip?.as_secs_f64().to_string()),
    );
    family(
        "roadstead_path_losses_total",
        "counter",
        "Times that the path was lost while it was connected.",
        &|path| Some(path.losses.count.to_string()),
    );
    type Count = fn(&Traffic) -> Option<u64>;
    let counters: [(&'static str, &str, Count); 6] = [
        ("roadstead_path_reads_total", "Reads done.", |t| {
            Some(t.commands.reads)
        }),
        ("roadstead_path_writes_total", "Writes done.", |t| {
            Some(t.commands.writes)
        }),
        ("roadstead_path_read_bytes_total", "Bytes read.", |t| {
            Some(t.commands.read_bytes)
        }),
        (
            "roadstead_path_written_bytes_total",
            "Bytes written.",
            |t| Some(t.commands.written_bytes),
        ),
        (
            "roadstead_path_segments_total",
            "Segments or packets sent on the present connections.",
            |t| Some(t.segments?.sent),
        ),
        (
            "roadstead_path_segments_again_total",
            "Of these, sent again.",
            |t| Some(t.segments?.sent_again),
        ),
    ];
    for (name, help, count) in counters {
        family(name, "counter", help, &|path| {
            Some(count(path.traffic.as_ref()?)?.to_string())
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use roadstead_attach::{CommandCounts, Losses, PathSpec, Segments, Spec};
    use roadstead_nvme::Portal;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn every_path_has_its_samples() {
        let paths: Vec<PathSpec> = ["10.0.0.1:4420", "rdma:[fd00::1]:4420"]
            .map(|text| text.parse::<Portal>().unwrap().into())
            .into();
        let live = PathStatus {
            state: PathState::Live,
            round_trip: Some(Duration::from_micros(150)),
            losses: Losses {
                count: 2,
                last_s: 9,
            },
            traffic: Some(Traffic {
                commands: CommandCounts {
                    reads: 3,
                    written_bytes: 8192,
                    ..CommandCounts::default()
                },
                segments: Some(Segments {
                    sent: 70,
                    sent_again: 1,
                }),
            }),
            ..PathStatus::failed(paths[0], "")
        };
        let attachment = Attachment {
            paths: vec![live, PathStatus::failed(paths[1], "no device")],
            spec: Spec {
                id: "pvc-1".into(),
                subsystem_nqn: "nqn.2026-11.io.roadstead:example".into(),
                volume_uuid: Uuid::from_u128(7),
                foreign: None,
                paths,
                read_only: false,
                method: None,
                ctrl_loss_timeout_s: 0,
            },
            device: None,
            error: None,
        };
        let mut text = String::new();
        super::paths(&mut text, &[attachment]);
        let tcp = r#"{attachment="pvc-1",transport="tcp",portal="10.0.0.1:4420"}"#;
        let rdma = r#"{attachment="pvc-1",transport="rdma",portal="[fd00::1]:4420"}"#;
        let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let wanted = [
            format!("roadstead_path_up{tcp} 1"),
            format!("roadstead_path_up{rdma} 0"),
            format!("roadstead_path_round_trip_seconds{tcp} 0.00015"),
            format!("roadstead_path_losses_total{tcp} 2"),
            format!("roadstead_path_losses_total{rdma} 0"),
            format!("roadstead_path_reads_total{tcp} 3"),
            format!("roadstead_path_writes_total{tcp} 0"),
            format!("roadstead_path_read_bytes_total{tcp} 0"),
            format!("roadstead_path_written_bytes_total{tcp} 8192"),
            format!("roadstead_path_segments_total{tcp} 70"),
            format!("roadstead_path_segments_again_total{tcp} 1"),
        ];
        assert_eq!(samples, wanted);
    }
}
