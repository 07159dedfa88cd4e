//! The pieces of answering, by the clock: `cargo bench -p ring53-bench --bench inside`. Their
//! instructions are counted by `ring53-bench counts`; these say what those instructions wait for.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ring53_bench::inside::pieces::{PIECES, QUERIES};

fn pieces(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("inside");
    group.throughput(Throughput::Elements(QUERIES as u64));
    for piece in PIECES {
        let (mut pass, slots) = piece.prepare(1).expect("its zone loads");
        group.bench_function(piece.name, |bencher| {
            bencher.iter_batched_ref(|| slots.clone(), |slots| pass(slots), BatchSize::LargeInput);
        });
    }
    group.finish();
}

criterion_group!(benches, pieces);
criterion_main!(benches);
