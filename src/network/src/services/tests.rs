//! What changes of Services mean for the kernel, as nft(8) would write the elements.
