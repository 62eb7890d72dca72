package probe

import (
	"cmp"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Bounds of a Result, in bytes.
const (
	maxResult = 64 << 10
	maxDER    = 32 << 10
)

// cutNote begins the text of a step that was cut.
const cutNote = "(cut to fit the result's bound) "

// fit makes a Result as small as it must be. What a target can make long is cut, the least useful
// first; every step stays, with its failures. A step that lost something says so.
func fit(r *pb.Result) {
	keepChains(r)
	keepDER(r)
	for _, cut := range []func(*pb.Step, map[string]bool) bool{
		cutRepeated, cutAside, cutSections, cutDER, cutBodies, cutHalf, cutHalf, cutHalf, cutHalf, cutAll,
	} {
		seen := map[string]bool{}
		for _, s := range r.GetSteps() {
			if proto.Size(r) <= maxResult {
				return // Nothing more than needed.
			}
			if s.GetEvidence() != nil && cut(s, seen) && !strings.HasPrefix(s.GetEvidence().GetText(), cutNote) {
				s.Evidence.Text = clean(cutNote+s.GetEvidence().GetText(), maxText)
			}
		}
	}
}

// keepChains leaves of a variant's chain the server's own certificate, where the handshake that it stands beside
// shows the same chain: then there is nothing else to be said of it.
func keepChains(r *pb.Result) {
	same := func(a, b *pb.Certificate) bool { return a.GetSha256() == b.GetSha256() }
	for _, s := range r.GetSteps() {
		if s.GetRole() != pb.Role_ROLE_VARIANT || s.Beside == nil {
			continue
		}
		shown := r.GetSteps()[s.GetBeside()].GetEvidence().GetTls().GetChain()
		tls := s.GetEvidence().GetTls()
		if len(shown) > 1 && !shown[0].GetAuthority() && slices.EqualFunc(tls.GetChain(), shown, same) {
			tls.Chain = tls.GetChain()[:1]
		}
	}
}

// keepDER leaves each distinct certificate's DER where it is first seen, up to a bound in all.
func keepDER(r *pb.Result) {
	seen, kept := map[string]bool{}, 0
	for _, s := range r.GetSteps() {
		tls := s.GetEvidence().GetTls()
		for _, c := range slices.Concat(tls.GetChain(), tls.GetChainAnalysis().GetMissing()) {
			if seen[c.GetSha256()] || kept+len(c.GetDer()) > maxDER {
				c.Der = nil
			}
			seen[c.GetSha256()] = true
			kept += len(c.GetDer())
		}
	}
}

// cutRepeated drops the names of certificates that an earlier step shows.
func cutRepeated(s *pb.Step, seen map[string]bool) (cut bool) {
	for _, c := range s.GetEvidence().GetTls().GetChain() {
		if seen[c.GetSha256()] {
			c.DnsNames, c.IpAddresses, cut = nil, nil, true
		}
		seen[c.GetSha256()] = true
	}
	return cut
}

// cutAside drops what those were answered that stand beside the question: controls, and the servers on
// the way to the zone's own.
func cutAside(s *pb.Step, _ map[string]bool) bool {
	aside := s.GetRole() == pb.Role_ROLE_CONTROL || s.GetRole() == pb.Role_ROLE_REFERRAL
	cut := aside && len(s.GetEvidence().GetReplies()) > 0
	if cut {
		s.Evidence.Replies = nil
	}
	return cut
}

// cutSections drops the sections of replies that are not the answer.
func cutSections(s *pb.Step, _ map[string]bool) (cut bool) {
	for _, r := range s.GetEvidence().GetReplies() {
		cut = cut || len(r.GetAuthority())+len(r.GetAdditional()) > 0
		r.Authority, r.Additional = nil, nil
	}
	return cut
}

// cutDER drops the certificates themselves.
func cutDER(s *pb.Step, _ map[string]bool) (cut bool) {
	tls := s.GetEvidence().GetTls()
	for _, c := range slices.Concat(tls.GetChain(), tls.GetChainAnalysis().GetMissing()) {
		cut = cut || len(c.GetDer()) > 0
		c.Der = nil
	}
	return cut
}

// cutBodies drops what of a response is for people to look at.
func cutBodies(s *pb.Step, _ map[string]bool) bool {
	h := s.GetEvidence().GetHttp()
	cut := h.GetBodyExcerpt() != ""
	if cut {
		h.BodyExcerpt = ""
	}
	return cut
}

// cutHalf halves lists.
func cutHalf(s *pb.Step, _ map[string]bool) bool {
	for _, r := range s.GetEvidence().GetReplies() {
		// Sorted, so that agents whose resolvers rotate the records keep the same ones.
		slices.SortFunc(r.GetAnswers(), func(a, b *pb.Record) int {
			return cmp.Or(cmp.Compare(a.GetType(), b.GetType()), cmp.Compare(a.GetData(), b.GetData()))
		})
		half := len(r.GetAnswers()) / 2
		r.LeftOut += int32(len(r.GetAnswers()) - half)
		r.Answers = r.GetAnswers()[:half]
	}
	tls := s.GetEvidence().GetTls()
	for _, c := range slices.Concat(tls.GetChain(), tls.GetChainAnalysis().GetMissing()) {
		c.DnsNames = half(c.GetDnsNames())
		c.IpAddresses = half(c.GetIpAddresses())
	}
	for _, v := range tls.GetVersions() {
		v.CipherSuites = half(v.GetCipherSuites())
	}
	if h := s.GetEvidence().GetHttp(); h != nil {
		h.Headers = half(h.GetHeaders())
	}
	return true
}

func half[T any](list []T) []T { return list[:len(list)/2] }

// cutAll drops what a target can make long and leaves what is small anyway.
func cutAll(s *pb.Step, _ map[string]bool) bool {
	e := s.GetEvidence()
	s.Evidence = &pb.Evidence{
		Errno: e.GetErrno(), Icmp: e.GetIcmp(), ErrorQueue: e.GetErrorQueue(), LocalAddress: e.GetLocalAddress(),
		BytesRead: e.GetBytesRead(), Tries: e.GetTries(), Rtt: e.GetRtt(),
	}
	if h := e.GetHttp(); h != nil {
		s.Evidence.Http = &pb.HTTPEvidence{
			Version: h.GetVersion(), Status: h.GetStatus(), FirstByte: h.GetFirstByte(), Done: h.GetDone(), BodySize: h.GetBodySize(),
		}
	}
	return true
}
