pub(crate) fn runtime_default(_c: crate::spec::Capabilities) -> Vec<crate::spec::BpfInstruction> { Vec::new() }
