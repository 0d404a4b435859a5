use std::path::Path;
use std::time::{Duration, Instant};

use super::TARGETS;

/// Nothing in the corpus is large, so nothing in it may take long, even where nothing is optimized and the machine is very busy.
const EACH_MAX: Duration = Duration::from_secs(20);

#[test]
fn what_the_fuzzer_left_breaks_nothing() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let mut folders: Vec<String> = names(&corpus);
    folders.sort();
    assert_eq!(folders, TARGETS.map(|(name, _)| name), "the folders of {}", corpus.display());
    for (name, target) in TARGETS {
        let folder = corpus.join(name);
        for file in names(&folder) {
            let bytes = std::fs::read(folder.join(&file)).unwrap();
            let started = Instant::now();
            let done = std::panic::catch_unwind(|| target(&bytes));
            assert!(done.is_ok(), "{name}/{file} panics");
            assert!(started.elapsed() < EACH_MAX, "{name}/{file} takes {:?}", started.elapsed());
        }
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}
