package aggregate

import (
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// strict is a client with every wish that a profile can state, and a row for every cause.
func strict() *pb.Profile {
	p := &pb.Profile{
		Name: "strict", Title: "Strict CDN",
		Versions: []string{"SSL 3.0", "TLS 1.0", "TLS 1.1", "TLS 1.2"}, DefaultVersions: []string{"TLS 1.2"},
		UnverifiedVersions: []string{"TLS 1.3"}, Ssl3ExcludesOthers: true,
		CipherSuites:         []string{suiteECDSA, suiteRSA, suiteCBC},
		Groups:               []string{"secp256r1", "secp384r1", "x25519"},
		SignatureSchemes:     []string{"rsa_pkcs1_sha256", "ecdsa_secp256r1_sha256"},
		RsaBits:              []uint32{1024, 2048, 3072, 4096},
		Curves:               []string{"secp256r1"},
		UnverifiedCurves:     []string{"secp384r1"},
		Verification:         pb.Verification_VERIFICATION_STRICT,
		Names:                []pb.NameSource{pb.NameSource_NAME_SOURCE_ORIGIN, pb.NameSource_NAME_SOURCE_HOST},
		CommonName:           true,
		ServerName:           pb.NameSource_NAME_SOURCE_HOST,
		ChainOrder:           true,
		HttpPorts:            []string{"80", "443", "1024-65535"},
		HttpsPorts:           []string{"80", "443", "1024-65535"},
		Ipv4Only:             true,
		ConnectTimeout:       durationpb.New(10 * time.Second),
		ResponseTimeout:      durationpb.New(10 * time.Second),
		MaxHeaderBytes:       32768,
		Ranges:               "https://ranges.example/ip.json",
		LoadBalancerSuffixes: []string{".elb.example"},
		Sources: map[string]*pb.Source{
			"unverified_versions": {Document: "versions.html", Date: "2026-04-13", Note: "documents conflict"},
			"unverified_curves":   {Document: "curves.html"},
		},
		RefusesClientCertificateRequest: true,
	}
	for n, name := range pb.OriginCause_name {
		if n == 0 {
			continue
		}
		row := &pb.ProfileCause{
			Cause: pb.OriginCause(n), Status: "502", Text: "the terms of " + short(name, "ORIGIN_CAUSE_"), Fix: "repair " + short(name, "ORIGIN_CAUSE_"),
			Source: &pb.Source{Document: "errors.html", Date: "2026-04-13"},
		}
		switch row.Cause {
		case pb.OriginCause_ORIGIN_CAUSE_FIREWALL:
			row.Status = "502 or 504"
		case pb.OriginCause_ORIGIN_CAUSE_RESPONSE:
			row.Status = "504"
		case pb.OriginCause_ORIGIN_CAUSE_UPSTREAM, pb.OriginCause_ORIGIN_CAUSE_EDGE:
			row.Status = ""
		case pb.OriginCause_ORIGIN_CAUSE_REVOKED:
			row.Source.Unverified = true
		default:
		}
		p.Causes = append(p.Causes, row)
	}
	return p
}

// lenient is a client that looks at no certificate and takes whatever it can speak to.
func lenient() *pb.Profile {
	p := strict()
	return &pb.Profile{
		Name: "lenient", Title: "Lenient CDN", Versions: []string{"TLS 1.0", "TLS 1.1", "TLS 1.2", "TLS 1.3"},
		Verification: pb.Verification_VERIFICATION_NONE, AddressOrigins: true, Causes: p.Causes,
	}
}

const (
	suiteRSA    = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
	suiteECDSA  = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"
	suiteCBC    = "TLS_RSA_WITH_AES_128_CBC_SHA"
	suiteChaCha = "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"
	suite13     = "TLS_AES_128_GCM_SHA256"
)

// originWorld is an origin at shop.origin.example, looked at for a client.
func originWorld(p *pb.Profile) *world {
	w := tcpWorld()
	w.m.Spec = &pb.Spec{Check: &pb.Spec_Origin{Origin: &pb.OriginSpec{Url: "https://shop.origin.example/", Profile: p}}}
	return w
}

// judgedFor is a check of TLS that is judged for a client.
func judgedFor(w *world, p *pb.Profile) *world {
	t := w.m.Spec.GetTls()
	t.Host, t.Profile = "shop.origin.example", p
	return w
}

// asking changes the question.
func asking(w *world, change func(*pb.OriginSpec)) *world {
	change(w.m.Spec.GetOrigin())
	return w
}

// hands is what the handshakes with one address show: the agent's own, and those beside it.
type hands struct {
	own, offer     pb.Failure // how the two end; the zero value is none
	version, suite string     // that the agent's own agrees on
	asks           bool       // the server asks for a certificate
	wrong          []pb.Failure
	leaf           *pb.Certificate
	names          []*pb.NameMatch // default: the origin's domain matches
	chain          *pb.ChainEvidence
	other          map[pb.Variant]*pb.TLSEvidence
	accepts        []*pb.VersionSupport
	noOffer        bool
	attempts       int32
}

// goodLeaf is a certificate that is good for every client.
func goodLeaf() *pb.Certificate {
	c := tls(ip1, "leaf")[1].GetEvidence().GetTls().GetChain()[0]
	c.Key, c.Signature, c.DnsNames = "RSA 2048", "SHA256-RSA", []string{"shop.origin.example"}
	return c
}

// shake is a connect, the agent's own handshake and those beside it.
func shake(address string, h hands) []*pb.Step {
	steps := tls(address, "leaf")
	own := steps[1]
	t := own.GetEvidence().GetTls()
	t.Version, t.CipherSuite, t.ServerName = "TLS 1.2", suiteRSA, "shop.origin.example"
	if h.version != "" {
		t.Version, t.CipherSuite = h.version, h.suite
	}
	t.ClientCertificateRequested = h.asks
	t.Chain = []*pb.Certificate{goodLeaf()}
	if h.leaf != nil {
		t.Chain[0] = h.leaf
	}
	t.ChainAnalysis = h.chain
	if t.Names = h.names; h.names == nil {
		t.Names = []*pb.NameMatch{{Name: "shop.origin.example", San: true}}
	}
	end(own, h.own, h.wrong)
	if h.own > none && len(h.wrong) == 0 {
		t.Version, t.CipherSuite, t.Chain = "", "", nil
	}
	beside := int32(1)
	add := func(kind pb.StepKind, v pb.Variant, f pb.Failure, e *pb.TLSEvidence) *pb.Step {
		s := step(kind, pb.Role_ROLE_VARIANT, address, f)
		s.Beside, s.Variant, s.Evidence.Tls = &beside, v, e
		steps = append(steps, s)
		return s
	}
	if !h.noOffer {
		e := proto.CloneOf(t)
		e.NegotiationOnly = true
		if h.version == "TLS 1.3" {
			e.Version, e.CipherSuite = "TLS 1.2", suiteRSA
		}
		if len(e.GetChain()) == 0 && h.offer == 0 {
			e.Version, e.CipherSuite, e.Chain = "TLS 1.2", suiteCBC, []*pb.Certificate{goodLeaf()}
		}
		o := add(pb.StepKind_STEP_KIND_TLS_HANDSHAKE, pb.Variant_VARIANT_PROFILE_OFFER, none, e)
		end(o, h.offer, h.wrong)
		if h.offer > none {
			e.Version, e.CipherSuite, e.Chain = "", "", nil
			o.Failures = []pb.Failure{h.offer}
		}
		o.Attempts = max(h.attempts, 1)
	}
	for _, v := range []pb.Variant{pb.Variant_VARIANT_NO_NAME, pb.Variant_VARIANT_ORIGIN_NAME} {
		if e := h.other[v]; e != nil {
			add(pb.StepKind_STEP_KIND_TLS_HANDSHAKE, v, none, e)
		}
	}
	if h.accepts != nil {
		add(pb.StepKind_STEP_KIND_TLS_ENUMERATION, pb.Variant_VARIANT_UNSPECIFIED, none, &pb.TLSEvidence{Versions: h.accepts})
	}
	return steps
}

// end makes a step end in a failure, or with something wrong about the certificates.
func end(s *pb.Step, f pb.Failure, wrong []pb.Failure) {
	switch {
	case f > none:
		s.Failure, s.Failures = f, []pb.Failure{f}
	case len(wrong) > 0:
		s.Failure, s.Failures = wrong[0], wrong
	}
}

// visited is a whole visit: the handshakes, and a response if they end well.
func visited(address string, h hands, status uint32) []*pb.Step {
	steps := shake(address, h)
	if h.own > none {
		return steps
	}
	f := none
	if status >= 400 {
		f = httpStatus
	}
	return append(steps, response(address, status, f))
}

// accepting is a server's versions, each with its suites.
func accepting(pairs ...any) []*pb.VersionSupport {
	var all []*pb.VersionSupport
	for i := 0; i < len(pairs); i += 2 {
		all = append(all, &pb.VersionSupport{Version: pairs[i].(string), Supported: true, CipherSuites: pairs[i+1].([]string)})
	}
	return all
}

// then is what one agent saw of one address after another.
func then(parts ...[]*pb.Step) []*pb.Step {
	var all []*pb.Step
	for _, part := range parts {
		for _, s := range part {
			if s.Beside != nil {
				beside := s.GetBeside() + int32(len(all))
				s.Beside = &beside
			}
		}
		all = append(all, part...)
	}
	return all
}
