package demo

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/elsewhere-net/elsewhere/internal/flags"
	"github.com/elsewhere-net/elsewhere/internal/network"
	"github.com/elsewhere-net/elsewhere/pkg/probe"
	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// internet is a little internet on loopback: hosts, a resolver for each region, and ways that lead
// elsewhere for some regions.
type internet struct {
	subnet  byte // 127.77.subnet.0/24, so that two demos do not meet
	ca      *probetest.CA
	servers []io.Closer
	places  []*place
}

// place is a region as the demo sees it.
type place struct {
	region, country, city string
	resolver              *probetest.DNSServer
	detours               map[netip.AddrPort]netip.AddrPort
}

// The ports and the hosts, by the last byte of their address.
const (
	httpsPort = 8443

	shopHost, apiHost, originHost, payHost, oldHost, filmsHost, controlHost = 10, 20, 30, 50, 60, 70, 200
	// detour is added to a host's last byte where a region's way ends somewhere else.
	detour = 1

	// newCDN and oldCDN are where news.example leads, now and before.
	newCDN, oldCDN = "new-cdn.example", "old-cdn.example"
)

// newInternet starts the internet in some free subnet.
func newInternet() (*internet, error) {
	var err error
	for range 5 {
		i := &internet{subnet: byte(1 + rand.IntN(250)), places: []*place{
			{region: "us-east", country: "US", city: "Ashburn"},
			{region: "eu-west", country: "IE", city: "Dublin"},
			{region: "ap-south", country: "IN", city: "Mumbai"},
			{region: "sa-east", country: "BR", city: "Sao Paulo"},
		}}
		if err = i.start(); err == nil {
			return i, nil
		}
		i.Close()
	}
	return nil, err
}

// Close stops every server.
func (i *internet) Close() {
	for _, s := range i.servers {
		_ = s.Close()
	}
}

func (i *internet) at(host byte, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 77, i.subnet, host}), port)
}

// start starts the hosts, then the resolvers, then makes the detours.
func (i *internet) start() (err error) {
	if i.ca, err = probetest.NewCA("Demo", probetest.CAOptions{}); err != nil {
		return err
	}
	now := time.Now()
	return errors.Join(
		i.serveTLS(i.at(shopHost, httpsPort), probetest.Leaf{Names: []string{"shop.example"}, NotAfter: now.AddDate(0, 3, 0)}),
		i.keep(probetest.Listen(i.at(apiHost, httpsPort), probetest.Accept)),
		i.keep(probetest.ListenFull(i.at(apiHost+detour, httpsPort))),
		i.serveOrigin(),
		i.serveTLS(i.at(payHost, httpsPort), probetest.Leaf{Names: []string{"pay.example"}, NotAfter: now.AddDate(0, 3, 0)}),
		i.serveTLS(i.at(payHost+detour, httpsPort), probetest.Leaf{
			Names: []string{"pay.example"}, NotBefore: now.AddDate(0, -3, 0), NotAfter: now.AddDate(0, 0, -2),
		}),
		i.keep(probetest.ListenClosed(i.at(oldHost, httpsPort))),
		i.serveFilms(),
		i.keep(probetest.Listen(i.at(controlHost, httpsPort), probetest.Accept)),
		i.serveDNS(),
	)
}

// keep remembers a host, to be closed.
func (i *internet) keep(h *probetest.Host, err error) error {
	if err != nil {
		return err
	}
	i.servers = append(i.servers, h)
	return nil
}

func (i *internet) serveTLS(at netip.AddrPort, leaf probetest.Leaf) error {
	cert, err := i.ca.Issue(leaf)
	if err != nil {
		return err
	}
	return i.keep(probetest.ListenTLS(at, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}))
}

// serveOrigin serves a page by suites that CloudFront does not offer below TLS 1.3.
func (i *internet) serveOrigin() error {
	cert, err := i.ca.Issue(probetest.Leaf{Names: []string{"origin.example"}, NotAfter: time.Now().AddDate(0, 3, 0)})
	if err != nil {
		return err
	}
	return i.keep(probetest.ListenHTTP(i.at(originHost, httpsPort), &tls.Config{
		Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS12,
		CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256},
		NextProtos:   []string{"http/1.1"},
	}, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })))
}

// serveFilms serves a page, and another one with the same certificate that says no.
func (i *internet) serveFilms() error {
	cert, err := i.ca.Issue(probetest.Leaf{Names: []string{"films.example"}, NotAfter: time.Now().AddDate(0, 3, 0)})
	if err != nil {
		return err
	}
	config := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	serve := func(host byte, status int) error {
		say := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }
		return i.keep(probetest.ListenHTTP(i.at(host, httpsPort), config.Clone(), http.HandlerFunc(say)))
	}
	return errors.Join(serve(filmsHost, http.StatusOK), serve(filmsHost+detour, http.StatusForbidden))
}

// serveDNS starts a resolver for each region; the one of eu-west has the old record of news.example.
func (i *internet) serveDNS() error {
	for n, p := range i.places {
		zone := probetest.Zone{}
		for name, host := range map[string]byte{
			"shop": shopHost, "api": apiHost, "origin": originHost, "pay": payHost, "old": oldHost, "films": filmsHost, "control": controlHost,
		} {
			zone[name+".example"] = probetest.Name{Records: []string{
				fmt.Sprintf("%s.example. 60 IN A %s", name, i.at(host, 0).Addr()),
			}}
		}
		cdn := newCDN
		if p.region == "eu-west" {
			cdn = oldCDN
		}
		zone["news.example"] = probetest.Name{Records: []string{fmt.Sprintf("news.example. 60 IN CNAME %s.", cdn)}}
		server, err := probetest.ServeDNS(netip.AddrPortFrom(i.at(byte(240+n), 0).Addr(), 5353), zone, true)
		if err != nil {
			return err
		}
		p.resolver = server
		i.servers = append(i.servers, server)
	}
	i.place("ap-south").leads(i.at(apiHost, httpsPort), i.at(apiHost+detour, httpsPort))
	i.place("sa-east").leads(i.at(filmsHost, httpsPort), i.at(filmsHost+detour, httpsPort))
	i.place("us-east").leads(i.at(payHost, httpsPort), i.at(payHost+detour, httpsPort))
	return nil
}

func (i *internet) place(region string) *place {
	for _, p := range i.places {
		if p.region == region {
			return p
		}
	}
	return nil
}

// leads makes connections from a place to an address end at another one.
func (p *place) leads(from, to netip.AddrPort) {
	if p.detours == nil {
		p.detours = map[netip.AddrPort]netip.AddrPort{}
	}
	p.detours[from] = to
}

// connect is the place's network: the real one, with its detours.
func (p *place) connect(ctx context.Context, addr netip.AddrPort, opts probe.ConnectOptions) (net.Conn, *pb.Evidence, error) {
	if to, ok := p.detours[addr]; ok {
		addr = to
	}
	return probe.Connect(ctx, addr, opts)
}

// agents are two for each place, on networks of their own.
func (i *internet) agents() (agents []network.Agent) {
	for n, p := range i.places {
		env := i.env(p)
		for k := range 2 {
			agents = append(agents, network.Agent{
				ID:  fmt.Sprintf("%s-%d", p.region, k+1),
				Env: env,
				Vantage: &pb.Vantage{
					Region: p.region, Country: p.country, City: p.city,
					Provider: []string{"Alpha", "Beta"}[k],
					Asn:      uint32(64500 + 2*n + k), // RFC 5398
				},
			})
		}
	}
	return agents
}

func (i *internet) env(p *place) *probe.Env {
	env := &probe.Env{
		Resolvers: []netip.AddrPort{p.resolver.Addr()},
		Connect:   p.connect,
		Controls:  []string{fmt.Sprintf("control.example:%d", httpsPort)},
		Egress:    probe.Egress{Allow: []netip.Prefix{netip.PrefixFrom(i.at(0, 0).Addr(), 24)}},
		Hints:     []netip.AddrPort{}, // This internet has no root.
		Version:   flags.Version(),
	}
	env.Roots = append(env.Roots, i.ca.Root)
	return env
}
