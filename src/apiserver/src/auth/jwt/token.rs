//! JSON web tokens in their compact form (RFC 7515 7.1): `HEADER.PAYLOAD.SIGNATURE`, each in base64 for URLs.
//!
//! Models github.com/coreos/go-oidc/verify.go. Everything here is untrusted until [`super::keys::KeySet::verifies`] says otherwise.
use api::codec;
use api::tree::Tree;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// A token with the groups of a large directory is some kilobytes; more is an attack.
pub const TOKEN_BYTES_MAX: usize = 64 << 10;

/// As it came.
#[derive(Debug)]
pub struct Compact<'t> {
    /// What the signature is of.
    pub signed: &'t str,
    pub algorithm: String,
    /// Empty: not said.
    pub key_id: String,
    pub claims: Tree,
    pub signature: Vec<u8>,
}

/// Whose token it says to be; `None`: no such token at all.
pub fn untrusted_issuer(token: &str) -> Option<String> {
    let claims = claims_of(token).ok()?;
    match claims.str_at(&["iss"]) {
        "accounts.google.com" => Some("https://accounts.google.com".into()),
        issuer => Some(issuer.to_owned()),
    }
}

fn claims_of(token: &str) -> Result<Tree, String> {
    let mut parts = token.split('.');
    let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err("malformed token".into());
    };
    if token.len() > TOKEN_BYTES_MAX {
        return Err(format!("a token of more than {TOKEN_BYTES_MAX} bytes"));
    }
    object(payload)
}

fn object(part: &str) -> Result<Tree, String> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|error| error.to_string())?;
    let tree = codec::parse_json(&bytes).map_err(|error| error.to_string())?.tree;
    if tree.as_object().is_some() { Ok(tree) } else { Err("no JSON object".into()) }
}

impl<'t> Compact<'t> {
    pub fn parse(token: &'t str) -> Result<Self, String> {
        let malformed = |why: String| format!("oidc: malformed jwt: {why}");
        let claims = claims_of(token).map_err(malformed)?;
        let (signed, signature) = token.rsplit_once('.').unwrap_or_default();
        let header = object(signed.split('.').next().unwrap_or_default()).map_err(malformed)?;
        // What it names must be understood, and nothing it could name is.
        if header.get("crit").is_some() {
            return Err(malformed("unsupported crit header".into()));
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|error| malformed(error.to_string()))?;
        if signature.is_empty() {
            return Err("oidc: id token not signed".into());
        }
        let text = |field: &str| header.str_at(&[field]).to_owned();
        Ok(Self { signed, algorithm: text("alg"), key_id: text("kid"), claims, signature })
    }

    /// `aud` as a text or a list.
    pub fn audiences(&self) -> Vec<String> {
        match self.claims.get("aud") {
            Some(Tree::String(one)) => vec![one.to_string()],
            Some(Tree::Array(many)) => many.iter().filter_map(Tree::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        }
    }

    /// Seconds since 1970.
    pub fn seconds(&self, claim: &str) -> Option<f64> {
        match self.claims.get(claim)? {
            Tree::Integer(seconds) => Some(*seconds as f64),
            Tree::Float(seconds) => Some(*seconds),
            _ => None,
        }
    }
}
