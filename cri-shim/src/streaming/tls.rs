//! TLS of the streaming server: certificate and key from files, read at start-up.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::config::StreamTls;

pub(super) fn acceptor(tls: &StreamTls) -> io::Result<TlsAcceptor> {
    let certificates = CertificateDer::pem_file_iter(&tls.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| told(&tls.certificate, e))?;
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|e| told(&tls.key, e))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| told(&tls.certificate, e))?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(|e| told(&tls.certificate, e))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn told(path: &Path, error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{}: {error}", path.display()))
}
