package probe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/elsewhere-net/elsewhere/pkg/probe/flight"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// An origin is looked at the way that a CDN comes to it: by its server_name, its Host, its User-Agent. What
// its TLS offers and the agent's library cannot is offered by hand, beside the agent's own handshake, and so
// are the other names that a server may have another certificate for. Whether the CDN would be content is
// the judge's to say.

// client is the client of a profile, which the agent comes in place of.
type client struct {
	offer *offer
	// Of an origin's client: the names that the certificate is compared with, the first of which decides;
	// the server_name that is sent, unless that is an address; and the origin's own domain. Without names the
	// handshake's are as the spec says.
	names  []string
	sends  string
	domain string
	// waits is how long it waits for a response. 0: not known.
	waits time.Duration
}

// patience is the budget of one exchange: as long as the client waits, where the Job has the time, so that
// silence means to it what it means here.
// An agent that gave up after ten seconds would call an origin hung that CloudFront serves, which waits for thirty.
func (c *client) patience(ctx context.Context) time.Duration {
	deadline, bounded := ctx.Deadline()
	if c == nil || c.waits < httpTimeout || bounded && time.Until(deadline)-spacing < c.waits {
		return httpTimeout
	}
	return c.waits
}

// asClient makes the request that a profile's client sends to an origin, or says what is wrong with the spec.
func asClient(spec *pb.OriginSpec, version string) (*request, error) {
	page := &pb.HTTPSpec{Url: spec.GetUrl(), HostHeader: spec.GetHostHeader(), Version: pb.HTTPVersion_HTTP_VERSION_1_1}
	p := spec.GetProfile()
	if a := p.GetUserAgent(); a != "" {
		page.Headers = []*pb.HeaderField{{Name: "User-Agent", Value: a}}
	}
	r, err := newRequest(page, version)
	if err != nil {
		return nil, err
	}
	c := &client{
		offer: profileOffer(p, spec.GetVersions()), domain: serverNameOf(r.hostname()), waits: p.GetResponseTimeout().AsDuration(),
	}
	from := map[pb.NameSource]string{
		pb.NameSource_NAME_SOURCE_ORIGIN: c.domain, pb.NameSource_NAME_SOURCE_HOST: serverNameOf(hostOf(r.host)),
	}
	c.sends = sni(cmp.Or(from[p.GetServerName()], c.domain))
	// The profile's come first, and then what else the certificate may be for.
	for _, source := range slices.Concat(p.GetNames(), []pb.NameSource{
		p.GetServerName(), pb.NameSource_NAME_SOURCE_ORIGIN, pb.NameSource_NAME_SOURCE_HOST,
	}) {
		if name := from[source]; name != "" && !slices.Contains(c.names, name) {
			c.names = append(c.names, name)
		}
	}
	r.client = c
	return r, nil
}

// profileOf is the profile that a spec has, or nil.
func profileOf(spec *pb.Spec) *pb.Profile {
	if o := spec.GetOrigin(); o != nil {
		return o.GetProfile()
	}
	return spec.GetTls().GetProfile()
}

// profileOffer is what a profile's client offers, configured to some of its versions. Default: those that it
// offers unless it is configured otherwise.
// CloudFront's SSLv3 is the trap that SSL 3.0 alone is for: who ticks it in the origin settings to be generous makes
// CloudFront offer nothing else, and every modern server refuses that.
func profileOffer(p *pb.Profile, versions []string) *offer {
	for _, more := range [][]string{p.GetDefaultVersions(), p.GetVersions()} {
		if len(versions) == 0 {
			versions = more
		}
	}
	o := readOffer(&pb.TLSOffer{
		Versions: versions, CipherSuites: p.GetCipherSuites(), Groups: p.GetGroups(), SignatureSchemes: p.GetSignatureSchemes(),
	})
	if p.GetSsl3ExcludesOthers() && o.versions[0] == flight.SSL30 {
		o.versions, o.byHand = o.versions[:1], true
	}
	return o
}

// introduce makes an origin's greeting that of its client.
func (c *client) introduce(g *greeting) {
	if c == nil {
		return
	}
	g.client = c
	g.name, g.names = c.names[0], c.names[1:]
	g.alias, g.mute = c.sends, c.sends == ""
}

// wellFormedOrigin says what is wrong with an origin check.
func wellFormedOrigin(spec *pb.OriginSpec, family pb.Family) error {
	r, err := asClient(spec, "")
	if at := (*SpecError)(nil); errors.As(err, &at) {
		field := map[string]string{"http.url": "url", "http.host_header": "host_header"}[at.Field]
		if field == "" { // The only header field.
			field = "profile.user_agent"
		}
		return invalid("origin."+field, at.Err)
	}
	if err != nil {
		return err
	}
	if err := wellFormedHost(r.hostname(), uint32(r.port()), family); err != nil {
		return invalid("origin.url", err)
	}
	return wholeProfile("origin.profile", spec.GetProfile())
}

// wholeProfile says whether the coordinator has put the profile into a spec: agents know none by name.
func wholeProfile(field string, p *pb.Profile) error {
	if p == nil || proto.Equal(p, &pb.Profile{Name: p.GetName()}) {
		return invalid(field, fmt.Errorf("the profile %q is not in the spec, only its name", p.GetName()))
	}
	return nil
}

// offerable says what nobody could offer of the profile in a check, configured to some of its versions.
func offerable(check string, p *pb.Profile, versions []string) error {
	for _, v := range versions {
		if len(p.GetVersions()) > 0 && !slices.Contains(p.GetVersions(), v) {
			return invalid(check+".versions", fmt.Errorf("%s speaks %s, and cannot be made to speak %s", p.GetName(), strings.Join(p.GetVersions(), ", "), v))
		}
	}
	o := profileOffer(p, versions)
	if err := o.impossible(); err != nil {
		return invalid(check+".profile", err)
	}
	if own := flight.Suites(flight.TLS13); o.highest() == flight.TLS13 && len(o.suites) > 0 &&
		!slices.ContainsFunc(o.suites, func(id uint16) bool { return slices.Contains(own, id) }) {
		// Servers that have TLS 1.3 choose it before they look for a suite.
		return invalid(check+".profile", errors.New("it offers TLS 1.3, and none of its cipher suites is for that"))
	}
	return nil
}

// meet begins the handshakes that show how a server meets the client, beside the agent's own and all at once:
// by its offer, and by other names. What it returns waits for how the first one ends.
func (h *shaker) meet(ctx context.Context) (offered func() pb.Failure) {
	variant := func(v pb.Variant) pb.Failure { return h.t.variant(ctx, h.changed(v), v) }
	offer := make(chan pb.Failure, 1)
	h.t.spawn(func() {
		defer close(offer)
		offer <- variant(pb.Variant_VARIANT_PROFILE_OFFER)
	})
	c := h.client
	if c.names != nil && h.sent() != "" {
		h.t.spawn(func() { variant(pb.Variant_VARIANT_NO_NAME) })
	}
	if c.names != nil && sni(c.domain) != "" && c.domain != h.sent() {
		h.t.spawn(func() { variant(pb.Variant_VARIANT_ORIGIN_NAME) })
	}
	return sync.OnceValue(func() pb.Failure { return <-offer })
}

// compare compares how the agent's own handshake ended with how the client's offer did. If they had nothing
// in common, it finds out what the server has. It returns how the handshake ended, or FAILURE_NONE if the
// client gets further than the agent's library can.
func (h *shaker) compare(ctx context.Context, stopped pb.Failure, offered func() pb.Failure) pb.Failure {
	h.t.spawn(func() {
		// All of a Result's addresses are one origin's: one of them stands for those that are like it.
		if !h.t.job.GetSpec().GetTls().GetEnumerate() && nothingCommon(offered(), stopped) && h.t.once("profile's enumeration") {
			h.t.enumerate(ctx, h.changed(pb.Variant_VARIANT_UNSPECIFIED))
		}
	})
	if canLook(stopped) {
		if f := offered(); f == pb.Failure_FAILURE_NONE || isCertificate(f) {
			return pb.Failure_FAILURE_NONE
		}
	}
	return stopped
}

// nothingCommon says whether an offer that ended so had nothing in common with the server, which may say that
// by closing the connection: then the agent's own handshake tells that it speaks TLS.
// Some servers send no alert where the versions do not meet and just hang up. Alone that is a firewall's way as
// well, so the agent's own handshake has to have heard TLS from there.
func nothingCommon(offered, own pb.Failure) bool {
	switch offered { //nolint:exhaustive // The others are about something else.
	case pb.Failure_FAILURE_TLS_VERSION_UNSUPPORTED, pb.Failure_FAILURE_TLS_NO_SHARED_CIPHER, pb.Failure_FAILURE_TLS_ALERT:
		return true
	case pb.Failure_FAILURE_TLS_CLOSED, pb.Failure_FAILURE_TLS_RESET:
		return spoke(own)
	}
	return false
}
