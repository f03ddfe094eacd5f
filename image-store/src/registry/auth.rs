//! Credentials for a registry, and how a challenge is answered.

/// What a caller knows about itself at a registry. Never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// For basic authentication, also at the token service.
    pub username: String,
    /// The password that goes with it.
    pub password: String,
    /// An OAuth2 refresh token.
    pub identity_token: String,
    /// A bearer token, sent to the registry as it is.
    pub registry_token: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(..)")
    }
}
