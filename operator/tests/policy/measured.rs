//! What was measured and what failed lately.

use k8s_openapi::jiff::SignedDuration;
use roadstead_crds::transport::{NetworkTransport, TransportChoice, Workload};
use roadstead_operator::policy::Measured;

use crate::{Case, address, everything, key, now};

fn low_latency_with(transport: NetworkTransport, measured: Measured) -> Case {
    let mut case = everything().workload(Workload::LowLatency);
    case.measured.insert(key(transport), measured);
    case
}

#[test]
fn a_path_that_broke_comes_last_for_a_while() {
    for (seconds, order) in [(1, "tcp, roce"), (299, "tcp, roce"), (300, "roce, tcp")] {
        let failed_at = now().checked_sub(SignedDuration::from_secs(seconds)).ok();
        let measured = Measured {
            failed_at,
            ..Measured::default()
        };
        let case = low_latency_with(NetworkTransport::Roce, measured);
        assert_eq!(case.outcome(), order, "{seconds} s ago");
        let says = case.why().contains("RoCE comes last until 2027-01-15T");
        assert_eq!(says, seconds < 300, "{}", case.why());
        // Where nothing else may be used it is used all the same.
        let named = case.asks(TransportChoice::Roce, None);
        assert_eq!(named.outcome(), "roce");
    }
}

#[test]
fn a_path_that_loses_packets_comes_last() {
    for (ppm, order) in [(10_000, "roce, tcp"), (10_001, "tcp, roce")] {
        let measured = Measured {
            loss_ppm: Some(ppm),
            ..Measured::default()
        };
        let case = low_latency_with(NetworkTransport::Roce, measured);
        assert_eq!(case.outcome(), order, "{ppm}");
    }
}

#[test]
fn the_shorter_round_trip_comes_first_among_equals() {
    let mut case = everything();
    let mut second = case.target.portals[0].clone();
    second.key.address = address(9);
    case.target.portals.push(second.clone());
    let trip = |us| Measured {
        round_trip_us: Some(us),
        ..Measured::default()
    };
    case.measured.insert(key(NetworkTransport::Tcp), trip(90));
    case.measured.insert(second.key, trip(40));
    case.measured.insert(key(NetworkTransport::Roce), trip(1));
    let choice = case.decide().outcome.expect("a choice");
    assert_eq!(choice.paths[0].key, second.key);
    assert_eq!(
        choice.transport.word(),
        "tcp",
        "the policy decides between transports"
    );
}
