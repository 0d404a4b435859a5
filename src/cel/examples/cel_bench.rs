//! How long a rule takes to compile, and to run: `cargo run --release -p cel --example cel_bench`.
use std::hint::black_box;
use std::time::Instant;

use cel::{CostLimit, Declared, Environment, Json, ObjectType, Value, Version, View};

/// A list of objects `{name: "nN", port: N}`.
struct Data(Vec<Item>);
struct Item(Port, Name);
struct Port(i64);
struct Name(String);

impl Json for Data {
    fn view(&self) -> View<'_> {
        View::Array
    }
    fn len(&self) -> usize {
        self.0.len()
    }
    fn item(&self, index: usize) -> Option<&dyn Json> {
        self.0.get(index).map(|item| item as &dyn Json)
    }
    fn field(&self, _: &str) -> Option<&dyn Json> {
        None
    }
    fn entry(&self, _: usize) -> Option<(&str, &dyn Json)> {
        None
    }
}

impl Json for Item {
    fn view(&self) -> View<'_> {
        View::Object
    }
    fn len(&self) -> usize {
        2
    }
    fn item(&self, _: usize) -> Option<&dyn Json> {
        None
    }
    fn field(&self, name: &str) -> Option<&dyn Json> {
        match name {
            "port" => Some(&self.0),
            "name" => Some(&self.1),
            _ => None,
        }
    }
    fn entry(&self, _: usize) -> Option<(&str, &dyn Json)> {
        None
    }
}

macro_rules! scalar {
    ($of:ty, $view:expr) => {
        impl Json for $of {
            fn view(&self) -> View<'_> {
                $view(&self.0)
            }
            fn len(&self) -> usize {
                0
            }
            fn item(&self, _: usize) -> Option<&dyn Json> {
                None
            }
            fn field(&self, _: &str) -> Option<&dyn Json> {
                None
            }
            fn entry(&self, _: usize) -> Option<(&str, &dyn Json)> {
                None
            }
        }
    };
}
scalar!(Port, |port: &i64| View::Int(*port));
scalar!(Name, |name| View::String(name));

fn measure(what: &str, rounds: u32, mut run: impl FnMut()) {
    for _ in 0..rounds / 10 {
        run();
    }
    let start = Instant::now();
    for _ in 0..rounds {
        run();
    }
    println!("{what}: {:.2} us", start.elapsed().as_secs_f64() * 1e6 / f64::from(rounds));
}

fn main() {
    let fields = [("name".into(), Declared::string(), true), ("port".into(), Declared::int(), true)];
    let declared = Declared::list(Declared::object(ObjectType::new("self.@idx", fields)));
    let environment = Environment::base(Version::CURRENT).with_variable("self", declared.clone());
    let all = "self.all(x, x.port > 0 && x.port < 65536)";
    let long = "self.all(x, x.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && x.name.size() < 64) && \
                self.filter(x, x.port < 1024).map(x, x.name).size() <= 3 && (self.exists(x, x.name == 'n1') ? self.size() > 1 : true)";
    for (name, text) in [("all", all), ("long", long)] {
        measure(&format!("compile and check `{name}`"), 2_000, || {
            black_box(environment.compile(black_box(text)).expect("it compiles"));
        });
    }
    let data = Data((0..10).map(|i| Item(Port(8000 + i), Name(format!("n{i}")))).collect());
    for (name, text) in [("all", all), ("long", long)] {
        let program = environment.compile(text).expect("it compiles");
        measure(&format!("evaluate `{name}` over ten"), 20_000, || {
            let variables = [("self", Value::read(&data, &declared))];
            let evaluation = program.evaluate(&variables.as_slice(), CostLimit::PER_CALL);
            assert!(evaluation.value.expect("it runs").as_bool() == Some(true));
        });
    }
}
