//! `rk image`: works on the same folder as a running server, which sees the change at once.
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context, bail};
use images::{Config, Credentials, Images, Progress, Reference, Registries};

use crate::cli::UsageError;
use crate::options::{ImageCommand, ImageOptions};

pub fn open(data_dir: &Path, registries: &Path) -> anyhow::Result<Images> {
    let registries = Registries::load(registries)?;
    let unpacker = std::env::current_exe().context("find this program's file")?;
    Ok(Images::open(Config { root: data_dir.join("images"), registries, unpacker })?)
}

pub fn main(options: ImageOptions) -> anyhow::Result<()> {
    if matches!(options.command, ImageCommand::List) && !options.data_dir.join("images").exists() {
        return print(vec![]); // looking makes no folders
    }
    let images = open(&options.data_dir, &options.private_registry)?;
    match options.command {
        ImageCommand::Pull { image, credentials } => pull(&images, &image, credentials.as_deref()),
        ImageCommand::Import { archives, name } => {
            let name = name.map(|n| parse(&n)).transpose()?;
            for archive in archives {
                let loaded = if archive.as_os_str() == "-" {
                    images.import(std::io::stdin().lock(), name.as_ref())
                } else {
                    let file = std::fs::File::open(&archive).with_context(|| format!("open {}", archive.display()))?;
                    images.import(file, name.as_ref())
                };
                for image in loaded.with_context(|| format!("import {}", archive.display()))? {
                    if image.tags.is_empty() {
                        println!("{}", image.id);
                    }
                    for tag in &image.tags {
                        println!("{tag}");
                    }
                }
            }
            Ok(())
        }
        ImageCommand::List => list(&images),
        ImageCommand::Remove { images: names } => {
            for name in names {
                images.remove(&name)?;
                println!("{name}");
            }
            Ok(())
        }
    }
}

fn parse(name: &str) -> anyhow::Result<Reference> {
    name.parse().map_err(|e| UsageError(format!("image {name:?}: {e}")).into())
}

fn pull(images: &Images, name: &str, login: Option<&str>) -> anyhow::Result<()> {
    let reference = parse(name)?;
    let credentials = match login {
        None => None,
        Some(login) => match login.split_once(':') {
            Some((user, password)) => Some(Credentials::basic(user, password)),
            None => bail!(UsageError("--credentials takes USER:PASSWORD".into())),
        },
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().context("start threads")?;
    let state: Mutex<BTreeMap<String, (u64, u64)>> = Mutex::default();
    let terminal = std::io::stderr().is_terminal();
    let progress = |event: Progress| {
        let mut state = state.lock().expect("no panic under this lock");
        match event {
            Progress::Downloading { digest, done_bytes, total_bytes } => {
                state.insert(digest.hex().to_owned(), (done_bytes, total_bytes));
                if terminal {
                    let (done, total) = state.values().fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
                    eprint!("\r{} of {} MiB ", done >> 20, total >> 20);
                    std::io::stderr().flush().ok();
                }
            }
            Progress::Unpacking { digest } if !terminal => eprintln!("{}: unpacking", &digest.hex()[..12]),
            Progress::Done { digest } if !terminal => eprintln!("{}: done", &digest.hex()[..12]),
            Progress::Unpacking { .. } | Progress::Done { .. } => {}
        }
    };
    let image = runtime.block_on(images.pull(&reference, credentials.as_ref(), &progress))?;
    if terminal {
        eprintln!();
    }
    println!("{reference} {}", image.id);
    Ok(())
}

fn list(images: &Images) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for image in images.list()? {
        let size = format!("{:.1} MiB", image.size_bytes as f64 / f64::from(1 << 20));
        let names = if image.tags.is_empty() { image.digests.clone() } else { image.tags.clone() };
        for name in names {
            rows.push([name, image.id.hex()[..12].to_owned(), size.clone()]);
        }
    }
    rows.sort();
    print(rows)
}

fn print(mut rows: Vec<[String; 3]>) -> anyhow::Result<()> {
    rows.insert(0, ["IMAGE", "ID", "SIZE"].map(str::to_owned));
    let width = |column: usize| rows.iter().map(|r| r[column].len()).max().unwrap_or_default();
    let (first, second) = (width(0), width(1));
    let mut out = std::io::stdout().lock();
    for [name, id, size] in &rows {
        writeln!(out, "{name:first$}   {id:second$}   {size}")?;
    }
    Ok(())
}
