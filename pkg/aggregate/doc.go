// Package aggregate judges the Results of a Measurement together: which regions see something
// different, what is in the way, how sure that is, and what to do about it.
//
// Judge is pure: no clock, no I/O, no goroutine, nothing but its arguments. How much evidence it wants is
// the measurement's Policy. It works in stages, each of which reads from its first file to its last:
//
//	judge     judge.go, bounds.go: what is told; facts.go, policy.go, vantage.go: who was asked, what is known,
//	          who is left out
//	states    states.go: what each agent saw of each address, as ok, fail or unknown. A failure counts only
//	          beside a control that passed, or with bytes of the target that explain it; everything else
//	          is unknown and accuses nobody
//	          of a name: names.go, answers.go, ttl.go; of a handshake: interference.go, certstate.go
//	          for the client of a profile: origin.go, origin_tls.go, origin_cert.go, origin_http.go
//	spots     spots.go: what each region as a whole saw of each address: open, shut or mixed
//	          witness.go: which agents are one witness; addresses.go: what a firewall sees of them
//	zones     zone.go, picture.go: what the zones' own servers say to each place
//	          explain.go: why an answer differs from that
//	findings  finding.go: what all of them state; then by what they are about
//	          the way: reach.go, latency.go, door.go
//	          names: dns.go, expect.go, views.go, differences.go, lame.go, zone_sync.go, propagation.go
//	          certificates, responses: cert.go, exchange.go
//	          the client of a profile: origin_find.go, noipv4.go
//	words     vocabulary.go: the contract's names as people read them; words.go, sentences.go,
//	          certwords.go, propagation_words.go, origin_words.go
//
// The rules of evidence that comments cite by number are those of the taxonomy. Where it leaves room,
// this package decides so:
//
//   - A region whose agents contradict each other is open enough to compare others with, and is not
//     blocked. The smaller side is listed; of two equal sides the failing one. What such a dissenting
//     agent alone says about the region's other addresses is told with it, not against the region.
//   - Agents of a region that fail in different ways still make it shut. The block is the most frequent
//     one, or not said when none is; the confidence is medium.
//   - An address that fails wherever it was tried is partial_address_failure, unless only regions tried
//     it that are shut altogether in the same way: then it goes with their regional_block. Seen from one
//     region, the target is not blamed for it.
//   - Confidence is high if two witnesses (min_networks) agree: in each listed region where the finding is
//     about regions, among all agents where it is about the target. Agents that share a network or a
//     provider are one witness (witness.go). For names they have to ask different resolvers too; one
//     private address in one region counts as one resolver.
//   - A region whose IPv6 alone is shut while it is open from others is a regional_block at those
//     addresses: rule 13 sets family_broken against partial_address_failure, not against the region.
//   - One region alone is insufficient_vantage for whatever keeps it from the target, the target's own
//     alert among it: something on the way may speak in its place. A certificate and a 5xx speak for
//     themselves.
//   - A server that a question names, and that answers nobody, is insufficient_vantage: a network that lets
//     DNS through to its own resolvers alone looks the same from inside.
//   - With a bad certificate, what the server answers over it is not judged (rule 12).
//   - NXDOMAIN and NODATA need one region to be unresolvable, other DNS failures two (min_regions): one region's
//     resolver alone may be at fault, and one region alone is insufficient_vantage. The zone is blamed for
//     NXDOMAIN from one region if its own servers say so there too.
//   - What a cache still has of a name that the zone's own servers deny there does not make it resolve: the regions
//     that follow the zone are not the odd ones.
//   - A resolver that denies what the zone's own servers have there holds an old denial if the zone's SOA came
//     with it (RFC 2308), and withholds the name otherwise. In a lookup the former is answers_stale; where
//     something is to be reached it is the failure to resolve, with how long it lasts.
//   - What the zone's own servers say is told apart from what they choose: servers that give one place now this,
//     now that, are neither out of sync nor contradicted by one more choice. In a zone that steers, an answer
//     that nobody here was given is unexplained, and never old.
//   - An old answer is told from a forged one by its TTL: less than the zone's own, or counting down. The host
//     that it leads to may be somebody else's by now, so that its certificate is no proof against it.
//   - answers_suspect is never made of a bogon, which is bogon_answer, nor of a private address that an agent is
//     allowed where the zone has public ones: whoever asks from inside may have a view of its own.
//   - A server's own word makes it lame, from one agent too; its silence only from min_regions, beside servers
//     that answer the same agents. If that leaves agents with nobody to ask, it is the one ERROR about the name.
//   - Perspectives of a propagation are resolvers by region. An address that several regions ask counts in each,
//     and the summary says so where nothing shows that those are different caches. A perspective lacks what
//     one of its agents was not given.
//   - A public resolver counts like an agent's own where data is expected: its users get what it has. It decides
//     nothing about whether the name resolves for the agent.
//   - Where expected data is missing, a zone that is out of sync is why, and told in the hint of
//     expectation_failed; where nothing is missing it is answers_unsynced.
//   - Where data is expected, NXDOMAIN and NODATA break the expectation and are no second finding; a
//     resolver that cannot answer breaks nothing and keeps its own finding.
//   - Where a port should be shut, one agent that gets in shows that it is not. Where it should be open,
//     one agent of several that does not is agents_differ; likewise where it should be shut in one way.
//   - Where reachability is expected, the door alone is judged (door.go): certificates and what a response
//     says are left out. A handshake that ends is open, and so is a response other than 403 and 451. A
//     server that ends the handshake by an alert is not open; it was reached, so it is not shut either.
//   - Where the target is judged for the client of a profile (origin.go), the client's own hello decides
//     about the handshake and its certificate: what the agent's library cannot do is no fault, and what it
//     can do is no proof (origin_tls.go). Of a certificate the client's own wishes count (origin_cert.go).
//     What fails from everywhere is one finding for each cause; what the target's own bytes show needs one
//     region. Responses of status 4xx are passed on to viewers and are no trouble, unless the same address
//     serves other regions. At addresses that the client never uses, a broken family is a warning.
//   - Different answers and different valid certificates name the regions that differ from the most
//     common one, or all if none is.
package aggregate
