package probe

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
	"google.golang.org/protobuf/proto"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Nothing is validated here: resolvers do that. This file finds out whether a resolver's SERVFAIL is its
// verdict on the signatures, by asking again with CD, and looks for the reason.

// maxSignatures bounds the signatures that are looked at.
const maxSignatures = 32

// security returns what a reply shows of DNSSEC, or nil.
func security(m *dns.Msg) *pb.DNSSECEvidence {
	signed := m.AuthenticatedData || len(signatures(m)) > 0
	if !signed {
		return nil
	}
	return &pb.DNSSECEvidence{Signed: true, Authentic: m.AuthenticatedData}
}

// signatures returns the RRSIGs of a reply.
func signatures(m *dns.Msg) (sigs []*dns.RRSIG) {
	for _, rr := range slices.Concat(m.Answer, m.Ns) {
		if sig, ok := rr.(*dns.RRSIG); ok && len(sigs) < maxSignatures {
			sigs = append(sigs, sig)
		}
	}
	return sigs
}

// bogus asks a resolver that failed once more without validation. If that is answered, validation is what
// failed, and the answer is concluded so.
func (t *trace) bogus(ctx context.Context, q query, a *answer) bool {
	if q.opts.GetCheckingDisabled() {
		return false
	}
	cd := q.again(a.step, pb.Variant_VARIANT_CHECKING_DISABLED)
	cd.opts = withoutChecking(q.opts)
	unvalidated := t.ask(ctx, cd)
	reason, detail := extended(a.msg)
	denied := unvalidated.failure == pb.Failure_FAILURE_DNS_NXDOMAIN || unvalidated.failure == pb.Failure_FAILURE_DNS_NODATA
	if unvalidated.failure != pb.Failure_FAILURE_NONE && !denied {
		return false
	}
	ev := &pb.DNSSECEvidence{Signed: len(signatures(unvalidated.msg)) > 0, Reason: reason, Detail: detail}
	r, words := expiry(signatures(unvalidated.msg), t.now())
	if words != "" {
		ev.Reason, ev.Detail = moreTelling(ev.GetReason(), r), words
	} else if words = t.skewed(q.server.Addr(), signatures(unvalidated.msg)); words != "" {
		a.step.say(errors.New(words))
		a.conclude(pb.Failure_FAILURE_AGENT_CLOCK_SKEW)
		return true
	}
	if !telling(ev.GetReason()) {
		t.keys(ctx, cd, unvalidated.msg, ev)
	}
	if denied && ev.GetReason() == pb.BogusReason_BOGUS_REASON_UNSPECIFIED {
		return false // That there is nothing is known from elsewhere too: no proof that validation failed.
	}
	if !telling(ev.GetReason()) {
		ev.Reason = pb.BogusReason_BOGUS_REASON_UNKNOWN
	}
	ev.Detail = clean(ev.GetDetail(), maxText)
	a.step.see(func(e *pb.Evidence) { e.Dnssec = ev })
	a.conclude(pb.Failure_FAILURE_DNS_DNSSEC_BOGUS)
	return true
}

// skewed says in words that a validator on the agent's own host finds signatures out of their time that are
// good by the coordinator's clock, since its own is wrong; "" if that is not what happened.
func (t *trace) skewed(server netip.Addr, sigs []*dns.RRSIG) string {
	here := time.Now()
	_, words := expiry(sigs, here)
	if words == "" || !server.IsLoopback() && !t.own(server.Unmap()) {
		return ""
	}
	return fmt.Sprintf("this host's clock is %v off, and its validator goes by it: %s", here.Sub(t.now()).Round(time.Second), words)
}

// telling says whether a reason says more than that validation failed.
func telling(r pb.BogusReason) bool { return r > pb.BogusReason_BOGUS_REASON_UNKNOWN }

// moreTelling returns the first reason that tells something.
func moreTelling(a, b pb.BogusReason) pb.BogusReason {
	if telling(a) {
		return a
	}
	return b
}

// withoutChecking returns options with CD and DO.
func withoutChecking(opts *pb.DNSSpec) *pb.DNSSpec {
	out := &pb.DNSSpec{}
	if opts != nil {
		out = proto.CloneOf(opts)
	}
	out.CheckingDisabled, out.Dnssec = true, true
	return out
}

// extended returns what a validator says itself, by its extended errors (RFC 8914, 4).
func extended(m *dns.Msg) (reason pb.BogusReason, detail string) {
	opt := m.IsEdns0()
	if opt == nil {
		return reason, ""
	}
	for _, o := range opt.Option {
		ede, ok := o.(*dns.EDNS0_EDE)
		if !ok {
			continue
		}
		if r := bogusReason(ede.InfoCode); r > reason { // The telling ones are the greater ones.
			reason = r
			detail = fmt.Sprintf("the resolver says: %s (%d) %s", dns.ExtendedErrorCodeToString[ede.InfoCode], ede.InfoCode, ede.ExtraText)
		}
	}
	return reason, strings.TrimSpace(detail)
}

// bogusReason is the reason that an extended error gives.
func bogusReason(code uint16) pb.BogusReason {
	switch code {
	case dns.ExtendedErrorCodeSignatureExpired:
		return pb.BogusReason_BOGUS_REASON_SIGNATURE_EXPIRED
	case dns.ExtendedErrorCodeSignatureNotYetValid:
		return pb.BogusReason_BOGUS_REASON_SIGNATURE_NOT_YET_VALID
	case dns.ExtendedErrorCodeDNSKEYMissing:
		return pb.BogusReason_BOGUS_REASON_DNSKEY_MISSING
	case dns.ExtendedErrorCodeRRSIGsMissing:
		return pb.BogusReason_BOGUS_REASON_SIGNATURE_MISSING
	case dns.ExtendedErrorCodeNSECMissing:
		return pb.BogusReason_BOGUS_REASON_DENIAL_MISSING
	case dns.ExtendedErrorCodeDNSBogus:
		return pb.BogusReason_BOGUS_REASON_UNKNOWN
	}
	return pb.BogusReason_BOGUS_REASON_UNSPECIFIED
}

// expiry looks for an RRset all of whose signatures are out of their time, by serial number arithmetic
// (RFC 4034, 3.1.5).
func expiry(sigs []*dns.RRSIG, now time.Time) (pb.BogusReason, string) {
	seconds := uint32(now.Unix())
	good := map[string]bool{}
	for _, sig := range sigs {
		if int32(sig.Expiration-seconds) >= 0 && int32(seconds-sig.Inception) >= 0 {
			good[coveredBy(sig)] = true
		}
	}
	for _, sig := range sigs {
		switch {
		case good[coveredBy(sig)]:
		case int32(sig.Expiration-seconds) < 0:
			return pb.BogusReason_BOGUS_REASON_SIGNATURE_EXPIRED,
				fmt.Sprintf("the signature of %s by %s expired %s", coveredBy(sig), canonical(sig.SignerName), moment(sig.Expiration))
		default:
			return pb.BogusReason_BOGUS_REASON_SIGNATURE_NOT_YET_VALID,
				fmt.Sprintf("the signature of %s by %s is valid from %s", coveredBy(sig), canonical(sig.SignerName), moment(sig.Inception))
		}
	}
	return pb.BogusReason_BOGUS_REASON_UNSPECIFIED, ""
}

// coveredBy names the RRset that a signature covers.
func coveredBy(sig *dns.RRSIG) string {
	return canonical(sig.Hdr.Name) + " " + dns.Type(sig.TypeCovered).String()
}

// moment returns a signature's time, which is modulo 2^32, in words.
func moment(seconds uint32) string { return time.Unix(int64(seconds), 0).UTC().Format(time.RFC3339) }

// keys compares a zone's DS and DNSKEY RRsets, and what is signed with them.
func (t *trace) keys(ctx context.Context, q query, m *dns.Msg, ev *pb.DNSSECEvidence) {
	q.variant = pb.Variant_VARIANT_KEYS
	zone, ds := t.chainOfTrust(ctx, q, m)
	if len(ds) == 0 {
		return
	}
	q.name, q.qtype = zone, dns.TypeDNSKEY
	a := t.ask(ctx, q)
	if a.msg == nil {
		return
	}
	var dnskeys []*dns.DNSKEY
	for _, rr := range a.msg.Answer {
		if key, ok := rr.(*dns.DNSKEY); ok && len(dnskeys) < maxSignatures {
			dnskeys = append(dnskeys, key)
		}
	}
	reason, detail := keyTrouble(zone, ds, dnskeys, signatures(m))
	if reason == pb.BogusReason_BOGUS_REASON_UNSPECIFIED {
		reason, detail = expiry(signatures(a.msg), t.now())
	}
	if telling(reason) {
		ev.Reason, ev.Detail = reason, detail
	}
}

// chainOfTrust finds the zone that a name is in and its DS RRset. The DS RRset of a name that is no apex
// does not exist, and the SOA record beside that answer names the zone that the name is in.
func (t *trace) chainOfTrust(ctx context.Context, q query, m *dns.Msg) (zone string, ds []*dns.DS) {
	zone = q.name
	if sigs := signatures(m); len(sigs) > 0 {
		zone = canonical(sigs[0].SignerName)
	}
	for range 2 {
		q.name, q.qtype = zone, dns.TypeDS
		a := t.ask(ctx, q)
		if a.msg == nil {
			return zone, nil
		}
		for _, rr := range a.msg.Answer {
			if one, ok := rr.(*dns.DS); ok && len(ds) < maxSignatures {
				ds = append(ds, one)
			}
		}
		apex := zone
		for _, rr := range a.msg.Ns {
			if rr.Header().Rrtype == dns.TypeSOA {
				apex = canonical(rr.Header().Name)
			}
		}
		if len(ds) > 0 || apex == zone || !within(zone, apex) {
			return zone, ds
		}
		zone = apex
	}
	return zone, ds
}

// keyTrouble compares a zone's DS RRset with its keys, and its keys with the signatures made by it.
func keyTrouble(zone string, ds []*dns.DS, dnskeys []*dns.DNSKEY, sigs []*dns.RRSIG) (pb.BogusReason, string) {
	const missing = pb.BogusReason_BOGUS_REASON_DNSKEY_MISSING
	if len(dnskeys) == 0 {
		return missing, fmt.Sprintf("the parent of %s has a DS RRset (key tag %d), and %s has no DNSKEY", zone, ds[0].KeyTag, zone)
	}
	var tags []uint16
	for _, key := range dnskeys {
		tags = append(tags, key.KeyTag())
	}
	if !slices.ContainsFunc(ds, func(d *dns.DS) bool { return madeOf(d, dnskeys) }) {
		return missing, fmt.Sprintf("no DNSKEY of %s (key tags %v) is the one that its parent's DS names (key tag %d)", zone, tags, ds[0].KeyTag)
	}
	if len(sigs) == 0 {
		return pb.BogusReason_BOGUS_REASON_SIGNATURE_MISSING, fmt.Sprintf("%s has a DS RRset and keys, and the answer has no signature", zone)
	}
	for _, sig := range sigs {
		if canonical(sig.SignerName) == zone && !slices.Contains(tags, sig.KeyTag) {
			return missing, fmt.Sprintf("%s is signed with key tag %d, and the keys of %s are %v", coveredBy(sig), sig.KeyTag, zone, tags)
		}
	}
	return pb.BogusReason_BOGUS_REASON_UNSPECIFIED, ""
}

// madeOf says whether a DS record is the digest of one of the keys (RFC 4034, 5.1.4), as far as the digest
// is known.
func madeOf(d *dns.DS, dnskeys []*dns.DNSKEY) bool {
	return slices.ContainsFunc(dnskeys, func(key *dns.DNSKEY) bool {
		made := key.ToDS(d.DigestType)
		return made == nil || made.KeyTag == d.KeyTag && made.Algorithm == d.Algorithm && strings.EqualFold(made.Digest, d.Digest)
	})
}
