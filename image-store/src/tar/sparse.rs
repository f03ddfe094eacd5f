//! Sparse files: the four ways in which GNU tar writes their maps, and the check that a map fits its file.

use super::{BLOCK, Error, Extent, limits, number};

/// Reads the entries of an old GNU sparse header or of one of its extension blocks, `count` of 24 bytes each.
pub fn old_entries(area: &[u8], count: usize, numbers: &mut Vec<u64>, offset: u64) -> Result<(), Error> {
    for entry in area.chunks_exact(24).take(count) {
        // An empty entry ends the list.
        if entry[0] == 0 {
            break;
        }
        for field in [&entry[..12], &entry[12..]] {
            let number = number::field(field).and_then(|number| u64::try_from(number).ok());
            numbers.push(number.ok_or(Error::Sparse { offset })?);
        }
        too_many(numbers.len() / 2, offset)?;
    }
    Ok(())
}

fn too_many(extents: usize, offset: u64) -> Result<(), Error> {
    if extents > limits::EXTENTS {
        return Err(Error::TooLarge { offset, what: "sparse map", limit: limits::EXTENTS as u64 });
    }
    Ok(())
}

/// The map of format 1.0: decimal numbers, one a line, in the first blocks of the file's data; the first is the count.
#[derive(Debug, Default)]
pub struct LeadingMap {
    count: Option<usize>,
    number: Option<u64>,
    /// Offsets and lengths in turn.
    pub numbers: Vec<u64>,
}

impl LeadingMap {
    /// Takes the next block; true when the map is complete with it.
    pub fn push(&mut self, block: &[u8; BLOCK], offset: u64) -> Result<bool, Error> {
        let malformed = || Error::Sparse { offset };
        for &byte in block {
            match byte {
                b'0'..=b'9' => {
                    let number = self.number.unwrap_or(0).checked_mul(10).ok_or_else(malformed)?;
                    self.number = Some(number.checked_add(u64::from(byte - b'0')).ok_or_else(malformed)?);
                }
                b'\n' => self.line(offset)?,
                _ => return Err(malformed()),
            }
            if self.count.is_some_and(|count| self.numbers.len() == 2 * count) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn line(&mut self, offset: u64) -> Result<(), Error> {
        let number = self.number.take().ok_or(Error::Sparse { offset })?;
        if self.count.is_some() {
            self.numbers.push(number);
            return Ok(());
        }
        let count = usize::try_from(number).unwrap_or(usize::MAX);
        too_many(count, offset)?;
        self.count = Some(count);
        Ok(())
    }
}

/// Makes extents of a map: in order, without overlap, within `real_size`, and not longer than the `stored` bytes that begin
/// at `data` in the stream.
pub fn extents(
    numbers: &[u64],
    real_size: u64,
    stored: u64,
    data: u64,
    offset: u64,
) -> Result<Vec<Extent>, Error> {
    let malformed = Error::Sparse { offset };
    if !numbers.len().is_multiple_of(2) {
        return Err(malformed);
    }
    let (mut extents, mut file_end, mut used) = (Vec::<Extent>::new(), 0_u64, 0_u64);
    for pair in numbers.chunks_exact(2) {
        let (file_offset, length) = (pair[0], pair[1]);
        let end = file_offset.checked_add(length).ok_or(malformed.clone())?;
        if file_offset < file_end || end > real_size || length > stored - used {
            return Err(malformed);
        }
        if length > 0 {
            let tar_offset = data.checked_add(used).ok_or(malformed.clone())?;
            match extents.last_mut() {
                Some(last) if last.file_offset + last.length == file_offset => last.length += length,
                _ => extents.push(Extent { file_offset, length, tar_offset }),
            }
        }
        (file_end, used) = (end, used + length);
    }
    Ok(extents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_checked() {
        let extent = |file_offset, length, tar_offset| Extent { file_offset, length, tar_offset };
        assert_eq!(extents(&[0, 5, 5, 5, 20, 0], 20, 10, 512, 0).unwrap(), [extent(0, 10, 512)]);
        assert_eq!(extents(&[4, 2, 9, 1], 10, 3, 0, 0).unwrap(), [extent(4, 2, 0), extent(9, 1, 2)]);
        for (numbers, real, stored) in [
            (&[0][..], 9, 9),
            (&[0, 5, 4, 1], 9, 9),
            (&[0, 10], 9, 10),
            (&[0, 5], 9, 4),
            (&[u64::MAX, 2], 9, 9),
        ] {
            assert!(extents(numbers, real, stored, 0, 0).is_err(), "{numbers:?}");
        }
    }
}
