//! Splits a label selector into tokens.
//!
//! Models apimachinery/pkg/labels/selector.go `Lexer`.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Error,
    End,
    Close,
    Comma,
    Not,
    DoubleEquals,
    Equals,
    Greater,
    Identifier,
    In,
    Less,
    NotEquals,
    NotIn,
    Open,
}

fn symbol(text: &str) -> Option<Token> {
    Some(match text {
        ")" => Token::Close,
        "," => Token::Comma,
        "!" => Token::Not,
        "==" => Token::DoubleEquals,
        "=" => Token::Equals,
        ">" => Token::Greater,
        "in" => Token::In,
        "<" => Token::Less,
        "!=" => Token::NotEquals,
        "notin" => Token::NotIn,
        "(" => Token::Open,
        _ => return None,
    })
}

fn is_special(b: u8) -> bool {
    b"=!(),><".contains(&b)
}

fn is_space(b: u8) -> bool {
    b" \t\r\n".contains(&b)
}

/// All tokens with their texts; the last one is `End`.
pub(super) fn scan(text: &str) -> Vec<(Token, String)> {
    let bytes = text.as_bytes();
    let mut items = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        if is_space(bytes[at]) {
            at += 1;
        } else if is_special(bytes[at]) {
            // The longest operator that stands here: only "=" and "!" can grow.
            let mut token = None;
            while at < bytes.len() && is_special(bytes[at]) {
                match symbol(&text[start..=at]) {
                    Some(longer) => token = Some(longer),
                    None => break,
                }
                at += 1;
            }
            items.push((token.unwrap_or(Token::Error), text[start..at].to_owned()));
        } else {
            while at < bytes.len() && !is_special(bytes[at]) && !is_space(bytes[at]) {
                at += 1;
            }
            let word = &text[start..at];
            items.push((symbol(word).unwrap_or(Token::Identifier), word.to_owned()));
        }
    }
    items.push((Token::End, String::new()));
    items
}
