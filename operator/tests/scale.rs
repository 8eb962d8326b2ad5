//! A plan for a large cluster stays cheap.

mod world;

use std::time::Instant;

use roadstead_operator::plan::plan;
use world::World;

#[test]
fn ten_thousand_volumes_on_a_hundred_nodes() {
    let names: Vec<String> = (0..100).map(|i| format!("n{i:03}")).collect();
    let mut world = World::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
    for name in &names {
        world.add_target(&format!("t-{name}"), name, &[4096, 4096]);
    }
    for i in 0..10_000 {
        world.add_volume(&format!("v{i}"), 10);
        world.attach(&format!("a{i}"), &format!("v{i}"), &names[i % 100]);
    }
    world.settle();
    let ready = world
        .api
        .attachments
        .keys()
        .filter(|name| world.attachment_ready(name).0 == "True");
    assert_eq!(ready.count(), 10_000);
    let snapshot = world.snapshot();
    let started = Instant::now();
    assert_eq!(plan(&snapshot).writes, []);
    // A bound that a slow, unoptimised build on a busy machine keeps, and that quadratic work would not.
    let took = started.elapsed();
    assert!(took.as_secs() < 5, "a plan took {took:?}");
    println!("a plan for 10,000 volumes took {took:?}");
}
