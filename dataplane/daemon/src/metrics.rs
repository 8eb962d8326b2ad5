//! Metrics in Prometheus' text format, made of the report: what one sees in the API and in the graphs agrees. Where the
//! report has rates, of paths, the counts are taken from what it is made of.
//!
//! The labels are bounded: one set for each reactor, volume, drive, subsystem, portal, attachment and path of the node.

mod paths;

use std::fmt::Write;
use std::sync::Arc;

use roadstead_api::v1;
use roadstead_attach::Attachment;
use roadstead_nvme::Transport;
use roadstead_ring::Activity;
use roadstead_verbs::Counts;

/// Ticks of /proc's clocks in a second; the kernel fixes it for user space.
const TICKS_PER_S: f64 = 100.0;

/// One metric with all its series.
struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl<'a> Family<'a> {
    fn new(text: &'a mut String, name: &'static str, kind: &str, help: &str) -> Self {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Self { text, name }
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.text.push_str(self.name);
        for (i, (label, value)) in labels.iter().enumerate() {
            let open = if i == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{open}{label}=\"{}\"", escape(value));
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{close} {value}");
    }
}

fn escape(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// All metrics of the node.
pub(crate) fn text(
    report: &v1::NodeReport,
    attached: &[Attachment],
    connections: usize,
    activities: &[Arc<Activity>],
    rdma: &[Counts],
) -> String {
    let mut text = String::with_capacity(4 << 10);
    let out = &mut text;
    let version = report
        .host
        .as_ref()
        .map_or("", |host| host.version.as_str());
    Family::new(out, "roadstead_info", "gauge", "The daemon.").sample(&[("version", version)], 1);
    volumes(out, &report.volumes);
    drives(out, &report.drives);
    let mut family = Family::new(
        out,
        "roadstead_connections",
        "gauge",
        "Open NVMe/TCP connections.",
    );
    family.sample(&[], connections);
    reactors(out, activities);
    rdma_devices(out, rdma);
    let mut family = Family::new(
        out,
        "roadstead_controllers",
        "gauge",
        "Controllers that hosts are connected to.",
    );
    for subsystem in &report.subsystems {
        family.sample(
            &[("subsystem", &subsystem.nqn)],
            subsystem.controllers.len(),
        );
    }
    let mut family = Family::new(
        out,
        "roadstead_portal_listening",
        "gauge",
        "Whether hosts can connect.",
    );
    for listed in &report.portals {
        let Some(portal) = &listed.portal else {
            continue;
        };
        let port = portal.port.to_string();
        let transport = match portal.transport() {
            v1::Transport::Rdma => Transport::Rdma,
            _ => Transport::Tcp,
        };
        // The same address and port may be one of each transport.
        let labels = [
            ("address", portal.address.as_str()),
            ("port", port.as_str()),
            ("transport", transport.name()),
        ];
        family.sample(&labels, u8::from(listed.listening));
    }
    attachments(out, &report.attachments);
    paths::paths(out, attached);
    process(out);
    text
}

fn reactors(out: &mut String, activities: &[Arc<Activity>]) {
    type Count = fn(&Activity) -> u64;
    let counters: [(&'static str, &str, Count); 2] = [
        (
            "roadstead_reactor_syscalls_total",
            "Calls of the kernel by the reactor.",
            Activity::enters,
        ),
        (
            "roadstead_reactor_sleeps_total",
            "Calls that waited for something to happen.",
            Activity::sleeps,
        ),
    ];
    for (name, help, count) in counters {
        let mut family = Family::new(out, name, "counter", help);
        for (index, activity) in activities.iter().enumerate() {
            family.sample(&[("reactor", &index.to_string())], count(activity));
        }
    }
}

fn rdma_devices(out: &mut String, counts: &[Counts]) {
    type Count = fn(&Counts) -> u64;
    let counters: [(&'static str, &str, Count); 4] = [
        (
            "roadstead_rdma_work_requests_total",
            "Work requests of the reactor's queue pairs.",
            |c| c.requests,
        ),
        (
            "roadstead_rdma_doorbells_total",
            "Batches in which they were handed to the devices.",
            |c| c.doorbells,
        ),
        (
            "roadstead_rdma_completions_total",
            "Completions of them that were asked for.",
            |c| c.completions,
        ),
        (
            "roadstead_rdma_messages_total",
            "Command capsules that came.",
            |c| c.messages,
        ),
    ];
    for (name, help, count) in counters {
        let mut family = Family::new(out, name, "counter", help);
        for (index, counts) in counts.iter().enumerate() {
            family.sample(&[("reactor", &index.to_string())], count(counts));
        }
    }
}

fn volumes(out: &mut String, volumes: &[v1::VolumeReport]) {
    type Count = fn(&v1::IoCounters) -> u64;
    let counters: [(&'static str, &str, Count); 6] = [
        ("roadstead_volume_reads_total", "Reads done.", |c| c.reads),
        ("roadstead_volume_writes_total", "Writes done.", |c| {
            c.writes
        }),
        ("roadstead_volume_flushes_total", "Flushes done.", |c| {
            c.flushes
        }),
        ("roadstead_volume_read_bytes_total", "Bytes read.", |c| {
            c.read_bytes
        }),
        (
            "roadstead_volume_written_bytes_total",
            "Bytes written.",
            |c| c.written_bytes,
        ),
        (
            "roadstead_volume_errors_total",
            "Commands that failed.",
            |c| c.errors,
        ),
    ];
    for (name, help, count) in counters {
        let mut family = Family::new(out, name, "counter", help);
        for volume in volumes {
            let labels = [
                ("volume", volume.name.as_str()),
                ("uuid", volume.uuid.as_str()),
            ];
            family.sample(&labels, volume.counters.as_ref().map_or(0, count));
        }
    }
    type Gauge = fn(&v1::VolumeReport) -> u64;
    let gauges: [(&'static str, &str, Gauge); 3] = [
        ("roadstead_volume_size_bytes", "Size of the volume.", |v| {
            v.size_bytes
        }),
        (
            "roadstead_volume_allocated_bytes",
            "Space that it takes.",
            |v| v.allocated_bytes,
        ),
        ("roadstead_volume_online", "Whether it is served.", |v| {
            u64::from(v.state() == v1::VolumeState::Online)
        }),
    ];
    for (name, help, value) in gauges {
        let mut family = Family::new(out, name, "gauge", help);
        for volume in volumes {
            let labels = [
                ("volume", volume.name.as_str()),
                ("uuid", volume.uuid.as_str()),
            ];
            family.sample(&labels, value(volume));
        }
    }
}

fn drives(out: &mut String, drives: &[v1::DriveReport]) {
    type Gauge = fn(&v1::DriveReport) -> u64;
    let gauges: [(&'static str, &str, Gauge); 4] = [
        ("roadstead_drive_capacity_bytes", "Room for volumes.", |d| {
            d.capacity_bytes
        }),
        ("roadstead_drive_free_bytes", "Room for new volumes.", |d| {
            d.free_bytes
        }),
        ("roadstead_drive_allocated_bytes", "Space in use.", |d| {
            d.allocated_bytes
        }),
        ("roadstead_drive_online", "Whether it serves.", |d| {
            u64::from(d.state() == v1::DriveState::Online)
        }),
    ];
    for (name, help, value) in gauges {
        let mut family = Family::new(out, name, "gauge", help);
        for drive in drives {
            family.sample(&[("drive", &drive.name)], value(drive));
        }
    }
}

fn attachments(out: &mut String, attachments: &[v1::AttachmentReport]) {
    let mut family = Family::new(
        out,
        "roadstead_attachment_paths_live",
        "gauge",
        "Paths that carry I/O.",
    );
    for attachment in attachments {
        let live = attachment
            .paths
            .iter()
            .filter(|path| path.state() == v1::PathState::Live);
        family.sample(&[("attachment", &attachment.id)], live.count());
    }
    let mut family = Family::new(
        out,
        "roadstead_attachment_paths",
        "gauge",
        "Paths asked for.",
    );
    for attachment in attachments {
        family.sample(&[("attachment", &attachment.id)], attachment.paths.len());
    }
}

/// The process's own use, under the names that all dashboards know. Left out when /proc says nothing.
fn process(out: &mut String) {
    if let Some(ticks) = cpu_ticks() {
        let name = "process_cpu_seconds_total";
        let mut family = Family::new(out, name, "counter", "User and system CPU time.");
        family.sample(&[], f64::from(ticks) / TICKS_PER_S);
    }
    if let Some(pages) = resident_pages() {
        let name = "process_resident_memory_bytes";
        let page_bytes = u64::try_from(rustix::param::page_size()).unwrap_or(u64::MAX);
        let mut family = Family::new(out, name, "gauge", "Memory in use.");
        family.sample(&[], pages.saturating_mul(page_bytes));
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        let mut family = Family::new(out, "process_open_fds", "gauge", "Open files.");
        family.sample(&[], open.count());
    }
}

/// utime + stime, fields 14 and 15 of /proc/self/stat, counted after the command's closing parenthesis.
fn cpu_ticks() -> Option<u32> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    user.checked_add(system)
}

fn resident_pages() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    statm.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text() {
        let counters = v1::IoCounters {
            reads: 3,
            ..Default::default()
        };
        let report = v1::NodeReport {
            volumes: vec![v1::VolumeReport {
                uuid: "u".into(),
                name: "a \"b\"\\".into(),
                state: v1::VolumeState::Online.into(),
                counters: Some(counters),
                ..Default::default()
            }],
            ..Default::default()
        };
        let counts = Counts {
            doorbells: 4,
            ..Default::default()
        };
        let text = text(&report, &[], 2, &[Arc::default()], &[counts]);
        for line in [
            r#"roadstead_volume_reads_total{volume="a \"b\"\\",uuid="u"} 3"#,
            r#"roadstead_volume_online{volume="a \"b\"\\",uuid="u"} 1"#,
            "roadstead_connections 2",
            r#"roadstead_reactor_syscalls_total{reactor="0"} 0"#,
            r#"roadstead_rdma_doorbells_total{reactor="0"} 4"#,
            "# TYPE process_cpu_seconds_total counter",
        ] {
            assert!(text.lines().any(|have| have == line), "{line}\n{text}");
        }
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        for line in samples {
            let (_, value) = line.rsplit_once(' ').expect(line);
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
}
