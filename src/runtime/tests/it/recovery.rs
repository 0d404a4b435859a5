pub fn daemon() {}
