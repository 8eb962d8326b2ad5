//! What came out.

use std::io::Write;
use std::time::Duration;

use serde::Serialize;

use crate::histogram::Histogram;
use crate::options::Options;
use crate::worker::Outcome;

/// Latencies of one direction.
#[derive(Debug, Serialize)]
struct Latency {
    count: u64,
    mean_us: f64,
    p50_us: f64,
    p90_us: f64,
    p99_us: f64,
    p999_us: f64,
    max_us: f64,
}

impl Latency {
    fn new(histogram: &Histogram) -> Self {
        let us = |ns: u64| ns as f64 / 1000.0;
        Self {
            count: histogram.count(),
            mean_us: us(histogram.mean_ns()),
            p50_us: us(histogram.quantile_ns(5000)),
            p90_us: us(histogram.quantile_ns(9000)),
            p99_us: us(histogram.quantile_ns(9900)),
            p999_us: us(histogram.quantile_ns(9990)),
            max_us: us(histogram.max_ns()),
        }
    }
}

#[derive(Debug, Serialize)]
struct Output {
    rw: String,
    block_size_bytes: u64,
    depth: u32,
    queues: u16,
    threads: usize,
    seconds: f64,
    iops: f64,
    mib_per_s: f64,
    read: Option<Latency>,
    write: Option<Latency>,
    /// Longest time during which nothing was answered.
    stall_us: f64,
    errors: u64,
    first_error: Option<String>,
    verified_blocks: Option<u64>,
    elapsed_s: f64,
}

/// Columns of the longest bar.
const BAR: u64 = 50;

/// Latencies as bars, a line each: how many took at most so long.
fn picture(name: &str, histogram: &Histogram) -> String {
    let rows = histogram.rows();
    let most = rows.iter().map(|row| row.1).max().unwrap_or(0).max(1);
    let line = |(upper_ns, count): (u64, u64)| {
        let width = usize::try_from(u128::from(count) * u128::from(BAR) / u128::from(most));
        let bar = "#".repeat(width.unwrap_or(0));
        let percent = count as f64 * 100.0 / histogram.count().max(1) as f64;
        let upper_us = upper_ns as f64 / 1000.0;
        format!("  {name:5} {upper_us:>10.1} us {percent:>6.2} % {bar}\n")
    };
    rows.into_iter().map(line).collect()
}

/// The sum of all threads.
pub(crate) struct Report {
    options: Options,
    reads: Histogram,
    writes: Histogram,
    seconds: f64,
    stall: Duration,
    errors: u64,
    first_error: Option<String>,
    verified: u64,
    elapsed: Duration,
}

impl Report {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            options: options.clone(),
            reads: Histogram::new(),
            writes: Histogram::new(),
            seconds: 0.0,
            stall: Duration::ZERO,
            errors: 0,
            first_error: None,
            verified: 0,
            elapsed: Duration::ZERO,
        }
    }

    pub(crate) fn add(&mut self, outcome: &Outcome) {
        self.reads.merge(&outcome.reads);
        self.writes.merge(&outcome.writes);
        self.seconds = self.seconds.max(outcome.measured.as_secs_f64());
        self.stall = self.stall.max(outcome.stall);
        self.errors += outcome.errors;
        self.verified += outcome.verified;
        if self.first_error.is_none() {
            self.first_error.clone_from(&outcome.first_error);
        }
    }

    pub(crate) fn finish(&mut self, elapsed: Duration) {
        self.elapsed = elapsed;
    }

    fn output(&self) -> Output {
        let count = (self.reads.count() + self.writes.count()) as f64;
        let iops = count / self.seconds.max(f64::MIN_POSITIVE);
        let bytes = self.options.block_size as f64;
        let latency = |h: &Histogram| (h.count() > 0).then(|| Latency::new(h));
        Output {
            rw: format!("{:?}", self.options.rw).to_lowercase(),
            block_size_bytes: self.options.block_size,
            depth: self.options.depth,
            queues: self.options.queues,
            threads: self.options.threads,
            seconds: self.seconds,
            iops,
            mib_per_s: iops * bytes / f64::from(1 << 20),
            read: latency(&self.reads),
            write: latency(&self.writes),
            stall_us: self.stall.as_secs_f64() * 1e6,
            errors: self.errors,
            first_error: self.first_error.clone(),
            verified_blocks: self.options.verify.then_some(self.verified),
            elapsed_s: self.elapsed.as_secs_f64(),
        }
    }

    /// Prints it. That nobody wants to read on (`| head`) is no error.
    pub(crate) fn print(&self, json: bool) -> anyhow::Result<()> {
        let mut text = self.text(json)?;
        text.push('\n');
        match std::io::stdout().write_all(text.as_bytes()) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn text(&self, json: bool) -> anyhow::Result<String> {
        let output = self.output();
        if json {
            return Ok(serde_json::to_string(&output)?);
        }
        let mut text = format!(
            "{} {} bytes, depth {} x {} threads: {:.0} IOPS, {:.0} MiB/s in {:.1} s",
            output.rw,
            output.block_size_bytes,
            output.depth,
            output.threads,
            output.iops,
            output.mib_per_s,
            output.seconds
        );
        for (name, latency) in [("read", &output.read), ("write", &output.write)] {
            if let Some(l) = latency {
                text += &format!(
                    "\n  {name:5} us: mean {:.1}, p50 {:.1}, p90 {:.1}, p99 {:.1}, p99.9 {:.1}, max {:.1}",
                    l.mean_us, l.p50_us, l.p90_us, l.p99_us, l.p999_us, l.max_us
                );
            }
        }
        if !self.options.no_picture {
            for (name, histogram) in [("read", &self.reads), ("write", &self.writes)] {
                let picture = picture(name, histogram);
                if !picture.is_empty() {
                    text.push('\n');
                    text.push_str(picture.trim_end());
                }
            }
        }
        text += &format!("\n  longest stall: {:.1} us", output.stall_us);
        if let Some(blocks) = output.verified_blocks {
            text += &format!("\n  {blocks} requests verified");
        }
        Ok(text)
    }

    /// An error when requests failed or data was wrong.
    pub(crate) fn verdict(&self) -> anyhow::Result<()> {
        match &self.first_error {
            None => Ok(()),
            Some(first) => anyhow::bail!("{} errors; the first: {first}", self.errors),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_is_the_most_frequent_latency() {
        let mut histogram = Histogram::new();
        for _ in 0..99 {
            histogram.add(10_000);
        }
        histogram.add(80_000);
        let text = picture("read", &histogram);
        let bars: Vec<usize> = text.lines().map(|line| line.matches('#').count()).collect();
        assert_eq!(bars.first(), Some(&50));
        assert!(text.starts_with("  read ") && text.contains("99.00 %"));
        assert_eq!(picture("read", &Histogram::new()), "");
    }
}
