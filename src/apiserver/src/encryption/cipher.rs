//! The ciphers of upstream's providers, in its formats.
//!
//! Models k8s.io/apiserver/pkg/storage/value/encrypt/{aes,secretbox}. `aescbc`: IV, then the padded text; it hides, but proves nothing.
//! `aesgcm`: nonce of 12 bytes, text, tag; the key of the object is authenticated with it, so a value cannot be moved. `secretbox`: nonce of
//! 24 bytes, tag, text (NaCl's XSalsa20 and Poly1305).
use std::sync::Arc;

use aes::cipher::{Array, BlockCipherDecrypt, BlockCipherEncrypt, BlockSizeUser, KeyInit, KeyIvInit, StreamCipher};
use aes::{Aes128, Aes192, Aes256};
use aes_gcm::AesGcm;
use aes_gcm::aead::consts::U12;
use aes_gcm::aead::{Aead, Payload};
use poly1305::Poly1305;
use ring::rand::{SecureRandom, SystemRandom};
use salsa20::XSalsa20;

use super::kms::Envelope;

const BLOCK_BYTES: usize = 16;
const GCM_NONCE_BYTES: usize = 12;
const BOX_NONCE_BYTES: usize = 24;
const BOX_TAG_BYTES: usize = 16;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CipherError {
    #[error("the stored data was shorter than the required size")]
    Short,
    #[error("the stored data is not a multiple of the block size")]
    BlockSize,
    #[error("invalid padding on input")]
    Padding,
    #[error("cipher: message authentication failed")]
    Forged,
    #[error("the system has no random numbers")]
    Random,
    #[error("{0}")]
    Kms(Arc<str>),
}

pub enum Cipher {
    AesCbc(Aes),
    AesGcm(Box<Gcm>),
    SecretBox(Box<[u8; 32]>),
    Kms(Arc<Envelope>),
}

pub enum Aes {
    Bits128(Box<Aes128>),
    Bits192(Box<Aes192>),
    Bits256(Box<Aes256>),
}

pub enum Gcm {
    Bits128(AesGcm<Aes128, U12>),
    Bits192(AesGcm<Aes192, U12>),
    Bits256(AesGcm<Aes256, U12>),
}

type Block = Array<u8, <Aes128 as BlockSizeUser>::BlockSize>;

impl Aes {
    /// `None`: there is no AES with keys of this length.
    pub fn new(key: &[u8]) -> Option<Self> {
        Some(match key.len() {
            16 => Aes::Bits128(Box::new(Aes128::new_from_slice(key).ok()?)),
            24 => Aes::Bits192(Box::new(Aes192::new_from_slice(key).ok()?)),
            32 => Aes::Bits256(Box::new(Aes256::new_from_slice(key).ok()?)),
            _ => return None,
        })
    }

    fn encrypt(&self, block: &mut Block) {
        match self {
            Aes::Bits128(aes) => aes.encrypt_block(block),
            Aes::Bits192(aes) => aes.encrypt_block(block),
            Aes::Bits256(aes) => aes.encrypt_block(block),
        }
    }

    fn decrypt(&self, block: &mut Block) {
        match self {
            Aes::Bits128(aes) => aes.decrypt_block(block),
            Aes::Bits192(aes) => aes.decrypt_block(block),
            Aes::Bits256(aes) => aes.decrypt_block(block),
        }
    }

    fn seal(&self, text: &[u8]) -> Result<Vec<u8>, CipherError> {
        let mut previous: [u8; BLOCK_BYTES] = random()?;
        let padding = BLOCK_BYTES - text.len() % BLOCK_BYTES;
        let mut out = Vec::with_capacity(2 * BLOCK_BYTES + text.len());
        out.extend_from_slice(&previous);
        let mut padded = text.to_vec();
        padded.resize(text.len() + padding, padding as u8);
        for chunk in padded.chunks_exact(BLOCK_BYTES) {
            let mut block = Block::default();
            block.iter_mut().zip(chunk.iter().zip(previous)).for_each(|(to, (a, b))| *to = a ^ b);
            self.encrypt(&mut block);
            previous.copy_from_slice(&block);
            out.extend_from_slice(&block);
        }
        Ok(out)
    }

    fn open(&self, data: &[u8]) -> Result<Vec<u8>, CipherError> {
        let (iv, text) = data.split_first_chunk::<BLOCK_BYTES>().ok_or(CipherError::Short)?;
        if text.is_empty() || !text.len().is_multiple_of(BLOCK_BYTES) {
            return Err(CipherError::BlockSize);
        }
        let mut previous: &[u8] = iv;
        let mut out = Vec::with_capacity(text.len());
        for chunk in text.chunks_exact(BLOCK_BYTES) {
            let mut block = Block::default();
            block.copy_from_slice(chunk);
            self.decrypt(&mut block);
            out.extend(block.iter().zip(previous).map(|(a, b)| a ^ b));
            previous = chunk;
        }
        let padding = usize::from(out.last().copied().unwrap_or(0));
        let size = out.len().checked_sub(padding).filter(|_| padding > 0).ok_or(CipherError::Padding)?;
        if out[size..].iter().any(|byte| usize::from(*byte) != padding) {
            return Err(CipherError::Padding);
        }
        out.truncate(size);
        Ok(out)
    }
}

impl Gcm {
    pub fn new(key: &[u8]) -> Option<Self> {
        Some(match key.len() {
            16 => Gcm::Bits128(AesGcm::new_from_slice(key).ok()?),
            24 => Gcm::Bits192(AesGcm::new_from_slice(key).ok()?),
            32 => Gcm::Bits256(AesGcm::new_from_slice(key).ok()?),
            _ => return None,
        })
    }

    pub fn seal(&self, text: &[u8], about: &[u8]) -> Result<Vec<u8>, CipherError> {
        let nonce: [u8; GCM_NONCE_BYTES] = random()?;
        let payload = || Payload { msg: text, aad: about };
        let sealed = match self {
            Gcm::Bits128(gcm) => gcm.encrypt(&nonce.into(), payload()),
            Gcm::Bits192(gcm) => gcm.encrypt(&nonce.into(), payload()),
            Gcm::Bits256(gcm) => gcm.encrypt(&nonce.into(), payload()),
        };
        Ok([&nonce[..], &sealed.map_err(|_| CipherError::Forged)?].concat())
    }

    pub fn open(&self, data: &[u8], about: &[u8]) -> Result<Vec<u8>, CipherError> {
        let (nonce, sealed) = data.split_first_chunk::<GCM_NONCE_BYTES>().ok_or(CipherError::Short)?;
        let payload = || Payload { msg: sealed, aad: about };
        let opened = match self {
            Gcm::Bits128(gcm) => gcm.decrypt(&(*nonce).into(), payload()),
            Gcm::Bits192(gcm) => gcm.decrypt(&(*nonce).into(), payload()),
            Gcm::Bits256(gcm) => gcm.decrypt(&(*nonce).into(), payload()),
        };
        opened.map_err(|_| CipherError::Forged)
    }
}

/// The stream of a box and the key of its tag, which is the stream's first 32 bytes.
fn box_stream(key: &[u8; 32], nonce: &[u8; BOX_NONCE_BYTES]) -> (XSalsa20, Poly1305) {
    let mut stream = XSalsa20::new(&(*key).into(), &(*nonce).into());
    let mut tag_key = [0; 32];
    stream.apply_keystream(&mut tag_key);
    (stream, Poly1305::new(&tag_key.into()))
}

fn seal_box(key: &[u8; 32], text: &[u8]) -> Result<Vec<u8>, CipherError> {
    let nonce: [u8; BOX_NONCE_BYTES] = random()?;
    let (mut stream, tag) = box_stream(key, &nonce);
    let mut sealed = text.to_vec();
    stream.apply_keystream(&mut sealed);
    let tag = tag.compute_unpadded(&sealed);
    Ok([&nonce[..], &tag[..], &sealed].concat())
}

fn open_box(key: &[u8; 32], data: &[u8]) -> Result<Vec<u8>, CipherError> {
    let (nonce, rest) = data.split_first_chunk::<BOX_NONCE_BYTES>().ok_or(CipherError::Short)?;
    let (tag, sealed) = rest.split_first_chunk::<BOX_TAG_BYTES>().ok_or(CipherError::Short)?;
    let (mut stream, expected) = box_stream(key, nonce);
    let expected = expected.compute_unpadded(sealed);
    // Without a branch on what differs.
    if expected.iter().zip(tag).fold(0, |all, (a, b)| all | (a ^ b)) != 0 {
        return Err(CipherError::Forged);
    }
    let mut text = sealed.to_vec();
    stream.apply_keystream(&mut text);
    Ok(text)
}

pub fn random<const N: usize>() -> Result<[u8; N], CipherError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| CipherError::Random)?;
    Ok(bytes)
}

impl Cipher {
    /// `about` is authenticated where the cipher can.
    pub fn seal(&self, text: &[u8], about: &[u8]) -> Result<Vec<u8>, CipherError> {
        match self {
            Cipher::AesCbc(aes) => aes.seal(text),
            Cipher::AesGcm(gcm) => gcm.seal(text, about),
            Cipher::SecretBox(key) => seal_box(key, text),
            Cipher::Kms(envelope) => envelope.seal(text, about),
        }
    }

    pub fn open(&self, data: &[u8], about: &[u8]) -> Result<Vec<u8>, CipherError> {
        match self {
            Cipher::AesCbc(aes) => aes.open(data),
            Cipher::AesGcm(gcm) => gcm.open(data, about),
            Cipher::SecretBox(key) => open_box(key, data),
            Cipher::Kms(envelope) => envelope.open(data, about),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
    }

    #[test]
    fn what_is_sealed_opens_and_what_was_changed_does_not() {
        for length in [16, 24, 32] {
            let key = vec![7; length];
            let mut ciphers = vec![Cipher::AesCbc(Aes::new(&key).unwrap()), Cipher::AesGcm(Box::new(Gcm::new(&key).unwrap()))];
            if let Ok(key) = <[u8; 32]>::try_from(&key[..]) {
                ciphers.push(Cipher::SecretBox(Box::new(key)));
            }
            for cipher in ciphers {
                for text in ["", "a", "exactly sixteen.", &"long".repeat(1000)] {
                    let sealed = cipher.seal(text.as_bytes(), b"/k").unwrap();
                    assert_eq!(cipher.open(&sealed, b"/k").unwrap(), text.as_bytes());
                    assert_ne!(cipher.seal(text.as_bytes(), b"/k").unwrap(), sealed);
                    assert!(cipher.open(&sealed[..sealed.len() - 1], b"/k").is_err());
                    let mut changed = sealed.clone();
                    *changed.last_mut().unwrap() ^= 1;
                    assert_ne!(cipher.open(&changed, b"/k").ok(), Some(text.as_bytes().to_vec()));
                }
                assert!(cipher.open(b"", b"").is_err());
            }
        }
        let gcm = Gcm::new(&[1; 32]).unwrap();
        assert_eq!(gcm.open(&gcm.seal(b"x", b"/a").unwrap(), b"/b"), Err(CipherError::Forged));
        assert!(Aes::new(&[0; 17]).is_none() && Gcm::new(&[0; 33]).is_none());
    }

    #[test]
    fn a_box_is_that_of_nacl() {
        // The vector of NaCl's own tests (secretbox.c).
        let key: [u8; 32] = hex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389").try_into().unwrap();
        let nonce: [u8; 24] = hex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37").try_into().unwrap();
        let text = hex(
            "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd751a1ac728d45e6c61296cdc3c01233561f41db66cce314adb31\
             0e3be8250c46f06dceea3a7fa1348057e2f6556ad6b1318a024a838f21af1fde048977eb48f59ffd4924ca1c60902e52f0a089bc76897040e082f937763848645e0705",
        );
        let boxed = hex(
            "f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650ba32fc76ce48332ea7164d96a4476fb8c531a1186ac0dfc17c98dce87b4da7f011ec48c97271\
             d2c20f9b928fe2270d6fb863d51738b48eeee314a7cc8ab932164548e526ae90224368517acfeabd6bb3732bc0e9da99832b61ca01b6de56244a9e88d5f9b37973f622a43d14a6599b1f654cb45a74e355a5",
        );
        assert_eq!(open_box(&key, &[&nonce[..], &boxed].concat()).unwrap(), text);
    }
}
