//! The table as nft prints it.
use expect_test::expect;
use network::Network;

use crate::lab::with_lab;

#[test]
fn the_fixed_part_is_what_nft_would_write() {
    with_lab(|lab| async move {
        let _network = Network::setup(lab.config()).await.expect("set up");
        let text = lab.ruleset();
        let chains = &text[text.find("\tchain ").expect("chains")..];
        expect![[r#"
            	chain prerouting {
            		type nat hook prerouting priority dstnat; policy accept;
            		jump services
            	}

            	chain output {
            		type nat hook output priority -100; policy accept;
            		jump services
            	}

            	chain postrouting {
            		type nat hook postrouting priority srcnat; policy accept;
            		meta mark & 0x00004000 != 0x00000000 ip daddr 10.42.0.0/16 meta mark set meta mark & 0xffffbfff snat to 10.42.0.1 fully-random
            		meta mark & 0x00004000 != 0x00000000 meta mark set meta mark & 0xffffbfff masquerade fully-random
            		ip saddr . ip daddr @hairpin snat to 10.42.0.1 fully-random
            		ip daddr 224.0.0.0/4 return
            		ip daddr 10.42.0.0/16 ip daddr != 10.42.0.0/24 ip saddr != 10.42.0.0/16 snat to 10.42.0.1 fully-random
            		ip saddr 10.42.0.0/24 ip daddr != 10.42.0.0/16 masquerade fully-random
            	}

            	chain filter-input {
            		type filter hook input priority filter; policy accept;
            		ct state new jump no-endpoints
            	}

            	chain filter-forward {
            		type filter hook forward priority filter; policy accept;
            		ct state new jump no-endpoints
            	}

            	chain filter-output {
            		type filter hook output priority filter; policy accept;
            		ct state new jump no-endpoints
            	}

            	chain firewall-prerouting {
            		type filter hook prerouting priority dstnat - 10; policy accept;
            		ct state new ip daddr . meta l4proto . th dport @firewall-ips jump firewall-check
            	}

            	chain firewall-output {
            		type filter hook output priority -110; policy accept;
            		ct state new ip daddr . meta l4proto . th dport @firewall-ips jump firewall-check
            	}

            	chain tunnel-prerouting {
            		type filter hook prerouting priority raw; policy accept;
            		udp dport 8472 fib daddr type local notrack
            	}

            	chain tunnel-output {
            		type filter hook output priority raw; policy accept;
            		udp dport 8472 notrack
            	}

            	chain services {
            		ip daddr . meta l4proto . th dport vmap @service-ips
            		ip daddr != 127.0.0.0/8 fib daddr type local meta l4proto . th dport vmap @service-nodeports
            	}

            	chain mark-masq {
            		meta mark set meta mark | 0x00004000
            	}

            	chain no-endpoints {
            		ip daddr . meta l4proto . th dport vmap @no-endpoint-ips
            		ip daddr != 127.0.0.0/8 fib daddr type local meta l4proto . th dport vmap @no-endpoint-nodeports
            		ip daddr @cluster-ips reject
            		ip daddr 10.43.0.0/16 drop
            	}

            	chain reject-chain {
            		reject
            	}

            	chain firewall-check {
            		ip daddr . meta l4proto . th dport . ip saddr @firewall-allow return
            		drop
            	}
            }
        "#]]
        .assert_eq(chains);
    });
}
