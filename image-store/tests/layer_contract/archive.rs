//! Writes tars by hand, so that tests can say exactly what stands in them.

/// A member to be written.
#[derive(Debug, Clone)]
pub struct Member {
    pub path: Vec<u8>,
    pub kind: u8,
    pub link: Vec<u8>,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub mtime: (i64, u32),
    pub data: Vec<u8>,
    pub device: (u32, u32),
    /// PAX records besides those that the fields need.
    pub pax: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Member {
    fn new(path: &str, kind: u8) -> Self {
        Self {
            path: path.into(),
            kind,
            link: Vec::new(),
            mode: if kind == b'5' { 0o755 } else { 0o644 },
            uid: 0,
            gid: 0,
            mtime: (1_700_000_000, 0),
            data: Vec::new(),
            device: (0, 0),
            pax: Vec::new(),
        }
    }

    pub fn directory(path: &str) -> Self {
        Self::new(path, b'5')
    }

    pub fn file(path: &str, data: &[u8]) -> Self {
        Self { data: data.to_vec(), ..Self::new(path, b'0') }
    }

    pub fn symlink(path: &str, target: &str) -> Self {
        Self { link: target.into(), ..Self::new(path, b'2') }
    }

    pub fn hard_link(path: &str, target: &str) -> Self {
        Self { link: target.into(), ..Self::new(path, b'1') }
    }

    pub fn device(path: &str, kind: u8, device: (u32, u32)) -> Self {
        Self { device, ..Self::new(path, kind) }
    }

    pub fn fifo(path: &str) -> Self {
        Self::new(path, b'6')
    }
}

/// An archive in the making.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
}

impl Archive {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn add(&mut self, member: &Member) {
        let mut pax = member.pax.clone();
        if member.path.len() > 100 {
            pax.push((b"path".to_vec(), member.path.clone()));
        }
        if member.link.len() > 100 {
            pax.push((b"linkpath".to_vec(), member.link.clone()));
        }
        if member.mtime.1 != 0 || member.mtime.0 < 0 {
            pax.push((b"mtime".to_vec(), time(member.mtime).into_bytes()));
        }
        for (key, id) in [("uid", member.uid), ("gid", member.gid)] {
            if id > 0o777_7777 {
                pax.push((key.into(), id.to_string().into_bytes()));
            }
        }
        if !pax.is_empty() {
            let records: Vec<u8> = pax.iter().flat_map(|(key, value)| record(key, value)).collect();
            let header = Member { data: records, ..Member::file("PaxHeaders/x", b"") };
            self.raw(&Member { kind: b'x', ..header });
        }
        self.raw(member);
    }

    pub fn into_bytes(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&[0; 1024]);
        self.bytes
    }

    pub fn into_bytes_without_end(self) -> Vec<u8> {
        self.bytes
    }

    fn raw(&mut self, member: &Member) {
        let mut block = [0_u8; 512];
        let mut put = |at: usize, most: usize, value: &[u8]| {
            let length = value.len().min(most);
            block[at..at + length].copy_from_slice(&value[..length]);
        };
        put(0, 100, &member.path);
        put(100, 8, format!("{:07o}", member.mode).as_bytes());
        put(108, 8, format!("{:07o}", member.uid.min(0o777_7777)).as_bytes());
        put(116, 8, format!("{:07o}", member.gid.min(0o777_7777)).as_bytes());
        put(124, 12, format!("{:011o}", member.data.len()).as_bytes());
        put(136, 12, format!("{:011o}", member.mtime.0.max(0)).as_bytes());
        put(148, 8, b"        ");
        put(156, 1, &[member.kind]);
        put(157, 100, &member.link);
        put(257, 8, b"ustar\x0000");
        put(329, 8, format!("{:07o}", member.device.0).as_bytes());
        put(337, 8, format!("{:07o}", member.device.1).as_bytes());
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend_from_slice(&block);
        self.bytes.extend_from_slice(&member.data);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
    }
}

fn time((seconds, nanoseconds): (i64, u32)) -> String {
    if seconds >= 0 || nanoseconds == 0 {
        return format!("{seconds}.{nanoseconds:09}");
    }
    format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanoseconds)
}

fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [format!("{length} ").as_bytes(), key, b"=", value, b"\n"].concat()
}
