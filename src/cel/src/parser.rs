//! Text into a tree: a Pratt parser over the grammar of cel-go parser/gen/CEL.g4.
//!
//! Messages are those of upstream's generated parser for its first error; it goes on after some and reports what follows from the first,
//! this one stops. Nesting is bounded as upstream bounds it: 250 expressions in each other, 250 links in a chain.
use std::sync::Arc;

use crate::Issue;
use crate::ast::{Ast, Entry, Expr, Id, Literal};
use crate::declared::reserved;
use crate::issue::Source;
use crate::lexer::{Kind, Lexer, Token};
use crate::macros;
use crate::unescape::unescape;

const LENGTH_MAX: usize = 100_000;
const DEPTH_MAX: u32 = 250;
const ISSUES_MAX: usize = 100;
const OPERAND: &str = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";

/// What the parser may read beside the core language.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Syntax {
    /// `a.?b`, `a[?b]`, `{?a: b}`, `optMap`.
    pub optionals: bool,
    /// Macros with two variables.
    pub two_variables: bool,
    /// `sortBy`.
    pub sort_by: bool,
}

pub(crate) fn parse(source: &Source, syntax: Syntax) -> Result<Ast, Vec<Issue>> {
    let characters = source.text.chars().count();
    if characters > LENGTH_MAX {
        let message = format!("expression code point size exceeds limit: size: {characters}, limit {LENGTH_MAX}");
        return Err(vec![Issue { line: -1, column: -1, message }]);
    }
    let mut issues = Vec::new();
    let mut lexer = Lexer::new(source.text);
    let mut tokens = Vec::new();
    loop {
        let token = lexer.next();
        match token.kind {
            Kind::Wrong => {
                let text = &source.text[token.start as usize..token.end as usize];
                issues.push(source.issue(token.start, format!("Syntax error: token recognition error at: '{text}'")));
                if issues.len() > ISSUES_MAX {
                    issues.push(source.issue(token.start, format!("Syntax error: More than {ISSUES_MAX} syntax errors")));
                    return Err(issues);
                }
            }
            _ => tokens.push(token),
        }
        if token.kind == Kind::End {
            break;
        }
    }
    let mut parser = Parser { source, tokens, at: 0, ast: Ast::default(), issues, syntax, nesting: 0 };
    if let Ok((root, _)) = parser.whole() {
        parser.ast.root = root;
    }
    if parser.issues.is_empty() { Ok(parser.ast) } else { Err(parser.issues) }
}

/// An issue was recorded; nothing more can be read.
pub(crate) struct Stop;

/// A node and how deep the tree below it is.
type Parsed = Result<(Id, u32), Stop>;

pub(crate) struct Parser<'t> {
    source: &'t Source<'t>,
    tokens: Vec<Token>,
    at: usize,
    pub(crate) ast: Ast,
    issues: Vec<Issue>,
    pub(crate) syntax: Syntax,
    nesting: u32,
}

impl Parser<'_> {
    fn token(&self) -> Token {
        self.tokens[self.at]
    }

    fn after(&self, ahead: usize) -> Token {
        self.tokens[(self.at + ahead).min(self.tokens.len() - 1)]
    }

    fn text(&self, token: Token) -> &str {
        match token.kind {
            Kind::End => "<EOF>",
            _ => &self.source.text[token.start as usize..token.end as usize],
        }
    }

    fn advance(&mut self) -> Token {
        let token = self.token();
        if token.kind != Kind::End {
            self.at += 1;
        }
        token
    }

    fn is(&self, mark: &str) -> bool {
        matches!(self.token().kind, Kind::Mark(known) if known == mark)
    }

    fn eat(&mut self, mark: &str) -> Option<Token> {
        self.is(mark).then(|| self.advance())
    }

    pub(crate) fn issue(&mut self, at: u32, message: String) {
        let issue = self.source.issue(at, message);
        self.issues.push(issue);
    }

    /// For issues of the tree, not of the grammar: a node that stands for what was wrong.
    fn wrong(&mut self, at: u32, message: String) -> Id {
        self.issue(at, message);
        self.ast.add(at, Expr::Wrong)
    }

    fn syntax_error<T>(&mut self, message: String) -> Result<T, Stop> {
        let at = self.token().start;
        self.issue(at, format!("Syntax error: {message}"));
        Err(Stop)
    }

    fn mismatched<T>(&mut self, expected: &str) -> Result<T, Stop> {
        let found = self.text(self.token()).to_owned();
        self.syntax_error(format!("mismatched input '{found}' expecting {expected}"))
    }

    /// Where a token too much may be skipped: it is, if what follows fits.
    fn skip_extraneous(&mut self, expected: &str, fits: impl Fn(Kind) -> bool) -> Result<(), Stop> {
        if self.token().kind == Kind::End || !fits(self.after(1).kind) {
            return self.mismatched(expected);
        }
        let (at, found) = (self.token().start, self.text(self.token()).to_owned());
        self.issue(at, format!("Syntax error: extraneous input '{found}' expecting {expected}"));
        self.at += 1;
        Ok(())
    }

    /// A closing mark; if what stands there could follow it, only the mark is missing.
    fn close(&mut self, mark: &'static str) -> Result<(), Stop> {
        if self.eat(mark).is_some() {
            return Ok(());
        }
        if matches!(self.after(1).kind, Kind::Mark(known) if known == mark) {
            self.skip_extraneous(&format!("'{mark}'"), |_| true)?;
            self.advance();
            return Ok(());
        }
        let found = self.text(self.token()).to_owned();
        let operand = starts_operand(self.token().kind);
        if operand || matches!(self.token().kind, Kind::Mark("[" | "(" | "{")) {
            return self.mismatched(&format!("'{mark}'"));
        }
        self.syntax_error(format!("missing '{mark}' at '{found}'"))
    }

    fn whole(&mut self) -> Parsed {
        let parsed = self.expression(OPERAND)?;
        if self.token().kind != Kind::End {
            self.skip_extraneous("<EOF>", |next| next == Kind::End)?;
        }
        Ok(parsed)
    }

    fn deeper(&mut self, depth: u32) -> Result<u32, Stop> {
        if depth >= DEPTH_MAX {
            self.issues.push(Issue { line: -1, column: -1, message: "max recursion depth exceeded".to_owned() });
            return Err(Stop);
        }
        Ok(depth + 1)
    }

    /// `expr`: a ternary or less. `expected` is what a message says could begin here.
    pub(crate) fn expression(&mut self, expected: &str) -> Parsed {
        self.nesting += 1;
        if self.nesting > DEPTH_MAX {
            self.issues.push(Issue { line: -1, column: -1, message: format!("expression recursion limit exceeded: {DEPTH_MAX}") });
            return Err(Stop);
        }
        let parsed = self.ternary(expected);
        self.nesting -= 1;
        parsed
    }

    fn ternary(&mut self, expected: &str) -> Parsed {
        let (condition, depth) = self.logic(expected, true)?;
        let Some(op) = self.eat("?") else { return Ok((condition, depth)) };
        let (then, depth1) = self.logic(OPERAND, true)?;
        if self.eat(":").is_none() {
            return self.mismatched("':'");
        }
        let (otherwise, depth2) = self.expression(OPERAND)?;
        let depth = self.deeper(depth.max(depth1).max(depth2))?;
        Ok((self.call(op.start, "_?_:_", vec![condition, then, otherwise]), depth))
    }

    /// `||` over `&&` over relations; long chains become balanced trees, as upstream does.
    fn logic(&mut self, expected: &str, or: bool) -> Parsed {
        let (mark, function) = if or { ("||", "_||_") } else { ("&&", "_&&_") };
        let (first, mut depth) = if or { self.logic(expected, false)? } else { self.relation(expected)? };
        let (mut terms, mut ops) = (vec![first], Vec::new());
        while let Some(op) = self.eat(mark) {
            let (term, more) = if or { self.logic(OPERAND, false)? } else { self.relation(OPERAND)? };
            ops.push(op.start);
            terms.push(term);
            depth = depth.max(more);
        }
        if ops.is_empty() {
            return Ok((first, depth));
        }
        Ok((self.balance(function, &terms, &ops), depth))
    }

    fn balance(&mut self, function: &str, terms: &[Id], ops: &[u32]) -> Id {
        let middle = ops.len() / 2;
        let left = if middle == 0 { terms[0] } else { self.balance(function, &terms[..=middle], &ops[..middle]) };
        let right = match &ops[middle + 1..] {
            [] => terms[middle + 1],
            rest => self.balance(function, &terms[middle + 1..], rest),
        };
        self.call(ops[middle], function, vec![left, right])
    }

    fn relation(&mut self, expected: &str) -> Parsed {
        let mut left = self.sum(expected)?;
        let mut links = 0;
        loop {
            let function = match self.token().kind {
                Kind::Mark("<") => "_<_",
                Kind::Mark("<=") => "_<=_",
                Kind::Mark(">") => "_>_",
                Kind::Mark(">=") => "_>=_",
                Kind::Mark("==") => "_==_",
                Kind::Mark("!=") => "_!=_",
                Kind::In => "@in",
                _ => return Ok(left),
            };
            left = self.binary(function, left, &mut links, Self::sum)?;
        }
    }

    fn sum(&mut self, expected: &str) -> Parsed {
        let mut left = self.product(expected)?;
        let mut links = 0;
        loop {
            let function = match self.token().kind {
                Kind::Mark("+") => "_+_",
                Kind::Mark("-") => "_-_",
                _ => return Ok(left),
            };
            left = self.binary(function, left, &mut links, Self::product)?;
        }
    }

    fn product(&mut self, expected: &str) -> Parsed {
        let mut left = self.unary(expected)?;
        let mut links = 0;
        loop {
            let function = match self.token().kind {
                Kind::Mark("*") => "_*_",
                Kind::Mark("/") => "_/_",
                Kind::Mark("%") => "_%_",
                _ => return Ok(left),
            };
            left = self.binary(function, left, &mut links, Self::unary)?;
        }
    }

    fn binary(&mut self, function: &str, left: (Id, u32), links: &mut u32, operand: fn(&mut Self, &str) -> Parsed) -> Parsed {
        self.link(links)?;
        let op = self.advance();
        let right = operand(self, OPERAND)?;
        let depth = self.deeper(left.1.max(right.1))?;
        Ok((self.call(op.start, function, vec![left.0, right.0]), depth))
    }

    fn link(&mut self, links: &mut u32) -> Result<(), Stop> {
        *links += 1;
        if *links >= DEPTH_MAX {
            self.issues.push(Issue { line: -1, column: -1, message: format!("expression recursion limit exceeded: {DEPTH_MAX}") });
            return Err(Stop);
        }
        Ok(())
    }

    fn unary(&mut self, expected: &str) -> Parsed {
        let (mark, function) = match self.token().kind {
            Kind::Mark("!") => ("!", "!_"),
            // A minus before a number is the number's own.
            Kind::Mark("-") if !matches!(self.after(1).kind, Kind::Int | Kind::Double) => ("-", "-_"),
            _ => return self.member(expected),
        };
        let op = self.token();
        let mut count = 0;
        while self.eat(mark).is_some() {
            count += 1;
        }
        if self.token().kind == Kind::End {
            return self.syntax_error(format!("extraneous input '<EOF>' expecting {OPERAND}"));
        }
        let (operand, depth) = self.member(OPERAND)?;
        if count % 2 == 0 {
            return Ok((operand, depth));
        }
        Ok((self.call(op.start, function, vec![operand]), depth))
    }

    fn member(&mut self, expected: &str) -> Parsed {
        let (mut operand, mut depth) = self.primary(expected)?;
        let mut links = 0;
        loop {
            if let Some(op) = self.eat(".") {
                self.link(&mut links)?;
                depth = self.deeper(depth)?;
                operand = self.after_dot(op, operand, &mut depth)?;
            } else if let Some(op) = self.eat("[") {
                self.link(&mut links)?;
                let optional = self.optional_mark("[?", op)?;
                let expected = if optional { OPERAND.to_owned() } else { OPERAND.replace("'!'", "'!', '?'") };
                let (index, below) = self.expression(&expected)?;
                self.close("]")?;
                depth = self.deeper(depth.max(below))?;
                operand = self.call(op.start, if optional { "_[?_]" } else { "_[_]" }, vec![operand, index]);
            } else {
                return Ok((operand, depth));
            }
        }
    }

    fn optional_mark(&mut self, written: &str, at: Token) -> Result<bool, Stop> {
        if self.eat("?").is_none() {
            return Ok(false);
        }
        if !self.syntax.optionals {
            self.issue(at.start, format!("unsupported syntax '{written}'"));
        }
        Ok(true)
    }

    fn after_dot(&mut self, op: Token, operand: Id, depth: &mut u32) -> Result<Id, Stop> {
        let optional = self.optional_mark(".?", op)?;
        let name = match self.token().kind {
            Kind::Ident | Kind::EscapedIdent => self.advance(),
            Kind::True | Kind::False | Kind::Null => return self.mismatched("IDENTIFIER"),
            _ => {
                let found = match self.token().kind {
                    Kind::End => String::new(),
                    _ => self.text(self.token()).to_owned(),
                };
                let written = if optional { ".?" } else { "." };
                let at = self.token().start;
                self.issue(at, format!("Syntax error: no viable alternative at input '{written}{found}'"));
                return Err(Stop);
            }
        };
        let field: Arc<str> = self.text(name).trim_matches('`').into();
        if optional {
            let field = self.ast.add(name.start, Expr::Literal(Literal::String(field)));
            return Ok(self.call(op.start, "_?._", vec![operand, field]));
        }
        if name.kind == Kind::Ident
            && let Some(open) = self.eat("(")
        {
            let args = self.arguments(depth)?;
            return Ok(macros::call(self, open.start, Some(operand), field, args));
        }
        Ok(self.ast.add(op.start, Expr::Select { operand, field, test: false }))
    }

    /// What follows `(`, to its `)`.
    fn arguments(&mut self, depth: &mut u32) -> Result<Vec<Id>, Stop> {
        let mut args = Vec::new();
        if self.eat(")").is_some() {
            return Ok(args);
        }
        let mut expected = OPERAND.replace("'('", "'(', ')'");
        loop {
            let (arg, below) = self.expression(&expected)?;
            *depth = self.deeper((*depth).max(below))?;
            args.push(arg);
            if self.eat(",").is_none() {
                break;
            }
            OPERAND.clone_into(&mut expected);
        }
        if !self.is(")") && self.token().kind != Kind::End && starts_operand(self.token().kind) {
            return self.mismatched("{')', ','}");
        }
        self.close(")")?;
        Ok(args)
    }

    fn primary(&mut self, expected: &str) -> Parsed {
        let token = self.token();
        match token.kind {
            Kind::Mark("(") => {
                self.at += 1;
                let parsed = self.expression(OPERAND)?;
                self.close(")")?;
                Ok(parsed)
            }
            Kind::Mark("[") => self.list(),
            Kind::Mark("{") => {
                self.at += 1;
                self.map(token.start)
            }
            Kind::Ident => self.name(),
            Kind::Mark(".") if self.after(1).kind == Kind::Ident => self.name(),
            Kind::Mark("-") if matches!(self.after(1).kind, Kind::Int | Kind::Double) => {
                self.at += 1;
                Ok((self.literal(token.start, "-"), 0))
            }
            Kind::Int | Kind::Uint | Kind::Double | Kind::String | Kind::Bytes | Kind::True | Kind::False | Kind::Null => {
                Ok((self.literal(token.start, ""), 0))
            }
            _ => {
                self.skip_extraneous(expected, starts_operand)?;
                self.unary(expected)
            }
        }
    }

    fn literal(&mut self, at: u32, sign: &str) -> Id {
        let token = self.advance();
        let text = self.text(token);
        let made = match token.kind {
            Kind::True => Ok(Literal::Bool(true)),
            Kind::False => Ok(Literal::Bool(false)),
            Kind::Int => {
                let (digits, radix) = text.strip_prefix("0x").map_or((text, 10), |hex| (hex, 16));
                i64::from_str_radix(&format!("{sign}{digits}"), radix).map(Literal::Int).map_err(|_| "invalid int literal")
            }
            Kind::Uint => {
                let text = &text[..text.len() - 1];
                let (digits, radix) = text.strip_prefix("0x").map_or((text, 10), |hex| (hex, 16));
                u64::from_str_radix(digits, radix).map(Literal::Uint).map_err(|_| "invalid uint literal")
            }
            Kind::Double => match format!("{sign}{text}").parse::<f64>() {
                Ok(double) if double.is_finite() => Ok(Literal::Double(double)),
                _ => Err("invalid double literal"),
            },
            Kind::String => unescape(text, false)
                .and_then(|bytes| String::from_utf8(bytes).map_err(|_| "invalid unicode code point"))
                .map(|text| Literal::String(text.into())),
            Kind::Bytes => unescape(&text[1..], true).map(|bytes| Literal::Bytes(bytes.into())),
            _ => Ok(Literal::Null),
        };
        match made {
            Ok(literal) => self.ast.add(at, Expr::Literal(literal)),
            Err(message) => self.wrong(at, message.to_owned()),
        }
    }

    /// A variable, a call, or a struct.
    fn name(&mut self) -> Parsed {
        let start = self.token().start;
        let dot = self.eat(".").is_some();
        let name = self.advance();
        let mut written = if dot { format!(".{}", self.text(name)) } else { self.text(name).to_owned() };
        let bare = self.text(name).to_owned();
        if self.struct_follows() {
            while self.eat(".").is_some() {
                let part = self.advance();
                written.push('.');
                written.push_str(self.text(part));
            }
            let open = self.advance();
            return self.fields(open.start, written.into());
        }
        if reserved(&bare) {
            let wrong = self.wrong(start, format!("reserved identifier: {bare}"));
            if self.eat("(").is_some() {
                self.arguments(&mut 0)?;
            }
            return Ok((wrong, 0));
        }
        if let Some(open) = self.eat("(") {
            let mut depth = 0;
            let args = self.arguments(&mut depth)?;
            return Ok((macros::call(self, open.start, None, written.into(), args), depth));
        }
        Ok((self.ast.add(name.start, Expr::Ident(written.into())), 0))
    }

    /// Whether `(.name)* {` follows.
    fn struct_follows(&self) -> bool {
        let mut ahead = 0;
        while self.after(ahead).kind == Kind::Mark(".") && self.after(ahead + 1).kind == Kind::Ident {
            ahead += 2;
        }
        self.after(ahead).kind == Kind::Mark("{")
    }

    fn list(&mut self) -> Parsed {
        let open = self.advance();
        let (mut elements, mut optional, mut depth) = (Vec::new(), Vec::new(), 0);
        let mut expected = OPERAND.replace("'[', '{', '(', '.', '-', '!'", "'[', ']', '{', '(', '.', ',', '-', '!', '?'");
        loop {
            if elements.is_empty() && self.is(",") && self.after(1).kind == Kind::Mark("]") {
                self.at += 1;
            }
            if self.is("]") || (self.token().kind == Kind::End && !elements.is_empty()) {
                break;
            }
            let at = self.token();
            optional.push(self.optional_mark("?", at)?);
            let (element, below) = self.expression(&expected)?;
            depth = depth.max(below);
            elements.push(element);
            if self.eat(",").is_none() {
                break;
            }
            expected = OPERAND.replace("'[', '{', '(', '.', '-', '!'", "'[', ']', '{', '(', '.', '-', '!', '?'");
        }
        if !self.is("]") && starts_operand(self.token().kind) {
            return self.mismatched("{']', ','}");
        }
        self.close("]")?;
        Ok((self.ast.add(open.start, Expr::List { elements, optional }), depth))
    }

    fn map(&mut self, at: u32) -> Parsed {
        let (mut entries, mut depth) = (Vec::new(), 0);
        let mut expected = OPERAND.replace("'{', '(', '.', '-', '!'", "'{', '}', '(', '.', ',', '-', '!', '?'");
        loop {
            if entries.is_empty() && self.is(",") && self.after(1).kind == Kind::Mark("}") {
                self.at += 1;
            }
            if self.is("}") {
                break;
            }
            let here = self.token();
            let optional = self.optional_mark("?", here)?;
            let (key, below) = self.expression(&expected)?;
            let Some(colon) = self.eat(":") else { return self.mismatched("':'") };
            let (value, below2) = self.expression(OPERAND)?;
            depth = depth.max(below).max(below2);
            entries.push(Entry { key, value, optional, at: colon.start });
            if self.eat(",").is_none() {
                break;
            }
            expected = OPERAND.replace("'{', '(', '.', '-', '!'", "'{', '}', '(', '.', '-', '!', '?'");
        }
        if self.eat("}").is_none() {
            return self.mismatched("{'}', ','}");
        }
        Ok((self.ast.add(at, Expr::Map { entries }), depth))
    }

    fn fields(&mut self, at: u32, name: Arc<str>) -> Parsed {
        let (mut fields, mut depth) = (Vec::new(), 0);
        loop {
            if fields.is_empty() && self.is(",") && self.after(1).kind == Kind::Mark("}") {
                self.at += 1;
            }
            if self.is("}") {
                break;
            }
            let here = self.token();
            let optional = self.optional_mark("?", here)?;
            if !matches!(self.token().kind, Kind::Ident | Kind::EscapedIdent) {
                return self.mismatched(if fields.is_empty() {
                    "{'}', ',', '?', IDENTIFIER, ESC_IDENTIFIER}"
                } else {
                    "{'}', '?', IDENTIFIER, ESC_IDENTIFIER}"
                });
            }
            let field = self.advance();
            let field: Arc<str> = self.text(field).trim_matches('`').into();
            let Some(colon) = self.eat(":") else { return self.mismatched("':'") };
            let (value, below) = self.expression(OPERAND)?;
            depth = depth.max(below);
            fields.push((field, Entry { key: 0, value, optional, at: colon.start }));
            if self.eat(",").is_none() {
                break;
            }
        }
        if self.eat("}").is_none() {
            return self.mismatched("{'}', ','}");
        }
        Ok((self.ast.add(at, Expr::Struct { name, fields }), depth))
    }

    pub(crate) fn call(&mut self, at: u32, function: &str, args: Vec<Id>) -> Id {
        self.ast.add(at, Expr::Call { target: None, function: function.into(), args })
    }
}

fn starts_operand(kind: Kind) -> bool {
    matches!(kind, Kind::Ident | Kind::Int | Kind::Uint | Kind::Double | Kind::String | Kind::Bytes | Kind::True | Kind::False | Kind::Null)
        || matches!(kind, Kind::Mark("[" | "{" | "(" | "." | "-" | "!"))
}
