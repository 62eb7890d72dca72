// Package aggregate judges the Results of a Measurement together: which regions see something
// different, what is in the way, how sure that is, and what to do about it.
//
// Judge is pure: no clock, no I/O, no goroutine, nothing but its arguments. How much evidence it wants is
// the measurement's Policy (policy.go). It works in three stages:
//
//   - facts and states (facts.go, states.go, names.go): what each agent saw of each address, as ok, fail
//     or unknown. A failure counts only beside a control that passed, or with bytes of the target that
//     explain it; everything else is unknown and accuses nobody.
//   - spots (spots.go): what each region as a whole saw of each address: open, shut, or mixed.
//   - findings (reach.go, door.go, expect.go, dns.go, views.go, cert.go, vantage.go), with their words
//     (words.go, sentences.go).
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
//     resolver alone may be at fault, and one region alone is insufficient_vantage.
//   - Where data is expected, NXDOMAIN and NODATA break the expectation and are no second finding; a
//     resolver that cannot answer breaks nothing and keeps its own finding.
//   - Where a port should be shut, one agent that gets in shows that it is not. Where it should be open,
//     one agent of several that does not is agents_differ; likewise where it should be shut in one way.
//   - Where reachability is expected, the door alone is judged (door.go): certificates and what a response
//     says are left out. A handshake that ends is open, and so is a response other than 403 and 451. A
//     server that ends the handshake by an alert is not open; it was reached, so it is not shut either.
//   - Different answers and different valid certificates name the regions that differ from the most
//     common one, or all if none is.
package aggregate
