//! Writes a tar into a store and says how long it took and how much memory: `layer ROOT erofs|tree LAYER.tar [TARGET]`.
//! With a target the layer is mounted there.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Instant;

use coracle_image_store::layer::{DiffId, ErofsLayers, LayerStore, TreeLayers};
use sha2::{Digest, Sha256};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, root, back_end, tar, target @ ..] = arguments.as_slice() else {
        return Err("usage: layer ROOT erofs|tree TAR [TARGET]".into());
    };
    let store: Box<dyn LayerStore> = match back_end.as_str() {
        "erofs" => Box::new(ErofsLayers::open(Path::new(root))?),
        _ => Box::new(TreeLayers::open(Path::new(root))?),
    };
    let mut digest = Sha256::new();
    std::io::copy(&mut std::fs::File::open(tar)?, &mut digest)?;
    let id = DiffId::from_bytes(digest.finalize().into());
    let begin = Instant::now();
    let mut writer = store.begin(id)?;
    let mut file = std::fs::File::open(tar)?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            length => writer.write(&buffer[..length])?,
        }
    }
    let streamed = begin.elapsed();
    let layer = writer.finish()?;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    println!(
        "{} inodes, streamed in {streamed:?}, committed after {:?}, {peak}",
        layer.inodes,
        begin.elapsed()
    );
    println!("{}", layer.path.display());
    if let Some(target) = target.first() {
        coracle_image_store::mount::attach(store.mount(&id)?.as_fd(), Path::new(target))?;
    }
    Ok(())
}
