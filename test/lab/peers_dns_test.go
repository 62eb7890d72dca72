package lab

// dnsComparisons ask dig and Elsewhere the same, of the same server.
func dnsComparisons() []comparison {
	var all []comparison
	for _, q := range []struct {
		name, says, ask string
		differs         map[string]string
	}{
		{"dns-a", "every address of a name, with its TTL", "www.peers.example A @" + nameServer, nil},
		{"dns-aaaa", "the IPv6 address of a name", "www.peers.example AAAA @" + nameServer, nil},
		{"dns-mx", "two exchanges, one of them in another zone", "peers.example MX @" + nameServer, nil},
		{"dns-ns", "name servers, with their addresses as additional data", "peers.example NS @" + nameServer, nil},
		{"dns-soa", "the serial and the times of a zone", "peers.example SOA @" + nameServer, nil},
		{"dns-txt", "strings with quotes in them", "peers.example TXT @" + nameServer, nil},
		{"dns-big-txt", "an answer that is too large for UDP is asked for again over TCP", "big.peers.example TXT @" + nameServer, nil},
		{"dns-srv", "a service's port and host", "_sip._tcp.peers.example SRV @" + nameServer, nil},
		{"dns-caa", "who may issue certificates", "peers.example CAA @" + nameServer, nil},
		{"dns-ds", "the parent's digest of a zone's key", "peers.example DS @" + nameTop, nil},
		{"dns-dnskey", "a zone's keys", "peers.example DNSKEY @" + nameServer, nil},
		{"dns-https-type", "parameters of an HTTPS service", "svc.peers.example HTTPS @" + nameServer, nil},
		{"dns-svcb", "parameters of a service", "_dns.peers.example SVCB @" + nameServer, nil},
		{"dns-tlsa", "a certificate's digest", "_443._tcp.www.peers.example TLSA @" + nameServer, nil},
		{"dns-naptr", "a rewriting rule with backslashes and quotes", "naptr.peers.example NAPTR @" + nameServer, nil},
		{"dns-sshfp", "a host key's digest", "host.peers.example SSHFP @" + nameServer, nil},
		{"dns-nsec", "the next name of a zone", "www.peers.example NSEC @" + nameServer, nil},
		{"dns-rrsig", "all signatures of a name", "short.peers.example RRSIG @" + nameServer, nil},
		{"dns-unknown-type", "a type that nobody knows, by its number", "odd.peers.example TYPE65280 @" + nameServer, nil},
		{"dns-wildcard", "a name that a wildcard stands for", "any.thing.wild.peers.example A @" + nameServer, nil},
		{"dns-alias", "an alias and where it leads, from the zone's own server", "alias.peers.example A @" + nameServer, nil},
		{"dns-alias-out", "an alias that leads into another zone of the same server", "one.peers.example A @" + nameServer, nil},
		{"dns-nxdomain", "a name that does not exist, with the zone's SOA", "nowhere.peers.example A @" + nameServer, nil},
		{"dns-nodata", "a name without a record of the type", "www.peers.example MX @" + nameServer, nil},
		{"dns-empty-non-terminal", "a name that only others are below", "_tcp.peers.example A @" + nameServer, nil},
		{"dns-referral", "a server that knows only who to ask", "www.lame.example A @" + nameTop, nil},
		{"dns-refused", "a server that refuses", "www.peers.example A @" + nameRefuser, nil},
		{"dns-root", "the root's servers", ". NS @" + nameRoot, nil},
		{"dns-case", "a name in capitals", "WWW.PEERS.EXAMPLE A @" + nameServer, map[string]string{
			"size": "Elsewhere asks in lower case, which named's names of that case are shorter with",
		}},
		{"dns-over-ipv6", "a server that is asked over IPv6", "www.peers.example A @" + nameServer6, nil},
		{"dns-closed", "an address without a name server", "www.peers.example A @" + nameNobody, nil},
		{"dns-silent", "a name server that never answers", "www.peers.example A @" + nameSilent, nil},
	} {
		all = append(all, comparison{
			name: q.name, says: q.says, tool: "dig " + q.ask, peer: askDig(q.ask), ask: "dns " + q.ask, read: resolved, differs: q.differs,
		})
	}
	return append(append(all, resolverComparisons()...), optionComparisons()...)
}

// resolverComparisons go to the resolver, whose times run down.
func resolverComparisons() []comparison {
	var all []comparison
	for _, q := range []struct{ name, says, ask string }{
		{"dns-chain", "a chain of three aliases over two zones", "one.peers.example A @" + nameResolver},
		{"dns-dangling", "an alias that leads nowhere", "dangling.peers.example A @" + nameResolver},
		{"dns-loop", "two aliases that lead to each other", "loop.peers.example A @" + nameResolver},
		{"dns-v6-only", "a name that has an IPv6 address alone", "v6only.peers.example A @" + nameResolver},
		{"dns-expired", "a zone whose signatures are over: SERVFAIL, and an extended error that says so", "expired.example A @" + nameResolver},
		{"dns-keyless", "a zone with a DS RRset and no keys", "nokey.example A @" + nameResolver},
		{"dns-lame", "a zone whose only server refuses", "www.lame.example A @" + nameResolver},
		{"dns-unsigned", "a zone that is not signed", "plain.example A @" + nameResolver},
	} {
		all = append(all, comparison{
			name: q.name, says: q.says, tool: "dig " + q.ask, peer: peerDropping(askTwice(q.ask), timeless), ask: "dns " + q.ask,
			read: dropping(resolved, timeless),
		})
	}
	return all
}

// optionComparisons ask with options, as dig spells them.
func optionComparisons() []comparison {
	var all []comparison
	const by = " @" + nameServer
	const tls = " +tls-hostname=good.peers.example"
	for _, q := range []struct{ name, says, peer, ask string }{
		{"dns-dnssec", "signatures", "www.peers.example +dnssec" + by, ""},
		{"dns-dnssec-nxdomain", "proof that a name does not exist", "nowhere.peers.example +dnssec" + by, ""},
		{"dns-dnssec-nodata", "proof that a type does not exist", "www.peers.example MX +dnssec" + by, ""},
		{"dns-dnssec-referral", "proof that a delegation is not signed", "www.plain.example +dnssec @" + nameTop, ""},
		{"dns-norec", "without the wish for recursion", "www.peers.example +norec" + by, ""},
		{"dns-nsid", "which server it is", "www.peers.example +nsid" + by, ""},
		{"dns-nsid-resolver", "which resolver it is", "peers.example NSEC +norec +nsid @" + nameRefuser, ""},
		{"dns-bufsize", "512 bytes are not enough: over TCP", "medium.peers.example TXT +bufsize=512" + by, ""},
		{"dns-bufsize-enough", "1,232 bytes are", "medium.peers.example TXT" + by, ""},
		{"dns-tcp", "over TCP at once", "www.peers.example +tcp" + by, ""},
		{"dns-subnet", "for a client's network, which this server does not look at", "www.peers.example +subnet=198.51.100.0/24" + by, ""},
		{"dns-id-server", "a server's name, class CH", "id.server CH TXT" + by, ""},
		{"dns-version", "a server's version, class CH", "version.bind CH TXT" + by, ""},
		{"dns-version-resolver", "a resolver's version, class CH", "version.server CH TXT @" + nameResolver, ""},
		{"dns-reverse", "the name of an address", "-x 203.0.113.20" + by, ""},
		{"dns-idn", "an internationalised name, as people write it", "+noidnin xn--bcher-kva.peers.example" + by, "bücher.peers.example" + by},
		{"dns-tls", "over TLS, and the server's certificate is checked", "www.peers.example +tls +tls-ca=ROOT" + tls + by, "www.peers.example +tls" + tls + by},
		{"dns-https", "over HTTPS by POST", "www.peers.example +https +tls-ca=ROOT" + tls + by, "www.peers.example +https" + tls + by},
		{"dns-https-get", "over HTTPS by GET", "www.peers.example +https-get +tls-ca=ROOT" + tls + by, "www.peers.example +https-get" + tls + by},
		{"dns-https-big", "more than UDP carries, over HTTPS", "big.peers.example TXT +https +tls-ca=ROOT" + tls + by, "big.peers.example TXT +https" + tls + by},
	} {
		if q.ask == "" {
			q.ask = q.peer
		}
		all = append(all, comparison{
			name: q.name, says: q.says, tool: "dig " + q.peer, peer: askDig(q.peer), ask: "dns " + q.ask, read: resolved,
		})
	}
	for _, q := range []struct{ name, says, ask string }{
		{"dns-validated", "signatures that the resolver checked", "www.peers.example +dnssec @" + nameResolver},
		{"dns-expired-cd", "what is bogus, without validation", "expired.example +cd @" + nameResolver},
		{"dns-keyless-cd", "the same for a zone without keys", "nokey.example +cd +dnssec @" + nameResolver},
	} {
		all = append(all, comparison{
			name: q.name, says: q.says, tool: "dig " + q.ask, peer: peerDropping(askDig(q.ask), timeless), ask: "dns " + q.ask,
			read: dropping(resolved, timeless),
		})
	}
	return all
}
