package probe

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Where an issuer's certificate is said to be (RFC 5280, 4.2.2.1) is written by whoever made the
// certificate. So what is fetched is little, over HTTP alone, and every address passes the egress guard.
const (
	maxFetches    = 3 // For one chain.
	maxFetchedURL = 2048
	maxFetched    = 64 << 10 // Bytes of a body.
	maxFetchURLs  = 16       // Different ones in a Run.
	maxFetchAddrs = 4        // Of a host that are tried.
	fetchTimeout  = 3 * time.Second
)

// fetches are the attempts to fetch what a chain lacks.
type fetches struct {
	tried []string
	gave  string // The URL that brought it further.
	err   error  // What came of the last one.
}

// words says where something was fetched from, or what came of it.
func (f *fetches) words() string {
	switch {
	case f.gave != "":
		return f.gave
	case len(f.tried) == 0:
		return ""
	case f.err == nil:
		return f.tried[len(f.tried)-1] + ": not the issuer's certificate"
	}
	return f.tried[len(f.tried)-1] + ": " + f.err.Error()
}

// complete fetches what is missing between the last certificate of the longest way and a root.
func (j *judgement) complete() {
	for len(j.fetched.tried) < maxFetches && j.fetch != nil && len(j.finder.found) == 0 {
		way := j.finder.furthest
		top := way[len(way)-1]
		from := j.issuerURL(top.Certificate)
		if from == "" || selfIssued(top.Certificate) {
			return
		}
		j.fetched.tried = append(j.fetched.tried, from)
		var certs []*x509.Certificate
		certs, j.fetched.err = j.fetch(from)
		for _, c := range certs {
			j.finder.add(&link{Certificate: c, index: -1})
		}
		if len(certs) == 0 {
			continue
		}
		if j.finder.from(j.leaf); len(j.finder.found) > 0 || len(j.finder.furthest) > len(way) {
			j.fetched.gave = from
		}
	}
}

// issuerURL returns where to look for a certificate's issuer next: http first, nothing twice.
func (j *judgement) issuerURL(c *x509.Certificate) string {
	next := ""
	for _, u := range c.IssuingCertificateURL[:min(len(c.IssuingCertificateURL), maxURLs)] {
		plain := strings.HasPrefix(strings.ToLower(u), "http:")
		if !slices.Contains(j.fetched.tried, u) && (next == "" || plain && !strings.HasPrefix(strings.ToLower(next), "http:")) {
			next = u
		}
	}
	return next
}

// issuers remembers what was fetched in a Run, since the addresses of a name mostly serve one chain.
type issuers struct {
	mu    sync.Mutex
	known map[string]func() ([]*x509.Certificate, error)
}

// fetchIssuers returns the certificates at a URL; of several goroutines that want them one fetches.
func (t *trace) fetchIssuers(ctx context.Context, from string) ([]*x509.Certificate, error) {
	t.issuers.mu.Lock()
	once := t.issuers.known[from]
	if once == nil {
		if len(t.issuers.known) >= maxFetchURLs {
			t.issuers.mu.Unlock()
			return nil, errors.New("not fetched: too many URLs in one job")
		}
		if t.issuers.known == nil {
			t.issuers.known = map[string]func() ([]*x509.Certificate, error){}
		}
		once = sync.OnceValues(func() ([]*x509.Certificate, error) { return t.fetch(ctx, from) })
		t.issuers.known[from] = once
	}
	t.issuers.mu.Unlock()
	return once()
}

// fetch gets the certificates at a URL, within ctx.
func (t *trace) fetch(ctx context.Context, from string) ([]*x509.Certificate, error) {
	u, err := url.Parse(from)
	if err != nil || len(from) > maxFetchedURL {
		return nil, errors.New("it is no URL that can be fetched")
	}
	if err := fetchable(u); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	client, done := t.issuerClient(ctx)
	defer done()
	defer cancel() // Before done, which waits for what ctx ends.
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("User-Agent", "elsewhere")
	response, err := client.Do(request)
	if err != nil {
		return nil, unwrapURL(err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the answer is %d", response.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxFetched+1))
	switch {
	case err != nil:
		return nil, err
	case len(body) > maxFetched:
		return nil, fmt.Errorf("the answer is over %d bytes", maxFetched)
	}
	return readCertificates(body)
}

// issuerClient returns a client for one small GET: no proxy, no connection kept, no compression, one
// redirect. After ctx has ended and done has returned, nothing that it began is under way.
func (t *trace) issuerClient(ctx context.Context) (client *http.Client, done func()) {
	// A transport leaves a dial behind if its request ends, and that has no deadline: it must not outlive
	// the Run, so its context is the request's.
	var dialling sync.RWMutex
	closed := false
	transport := &http.Transport{
		DialContext: func(_ context.Context, _, hostPort string) (net.Conn, error) {
			dialling.RLock()
			defer dialling.RUnlock()
			if closed {
				return nil, context.Canceled
			}
			return t.dialIssuer(ctx, hostPort)
		},
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxFetched,
	}
	redirect := func(r *http.Request, via []*http.Request) error {
		if len(via) > 1 {
			return errors.New("more than one redirect")
		}
		return fetchable(r.URL)
	}
	return &http.Client{Transport: transport, CheckRedirect: redirect}, func() {
		dialling.Lock()
		closed = true
		dialling.Unlock()
		transport.CloseIdleConnections()
	}
}

// unwrapURL leaves out what http.Client says of the URL, which stands before the error anyway.
func unwrapURL(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}

// fetchable says why a URL is not fetched. The low ports are those of other services than HTTP.
func fetchable(u *url.URL) error {
	port := 80
	if p := u.Port(); p != "" {
		port, _ = strconv.Atoi(p)
	}
	switch {
	case u.Scheme != "http":
		return fmt.Errorf("not fetched: %q is not http", u.Scheme)
	case u.User != nil || u.Opaque != "":
		return errors.New("not fetched: it has more than a host and a path")
	case port != 80 && port < 1024:
		return fmt.Errorf("not fetched: port %d is not for http", port)
	}
	return wellFormedHost(u.Hostname(), uint32(port), pb.Family_FAMILY_UNSPECIFIED)
}

// dialIssuer connects to a host that a certificate names. Each address is put before the guard just
// before its socket opens.
func (t *trace) dialIssuer(ctx context.Context, hostPort string) (net.Conn, error) {
	host, service, err := net.SplitHostPort(hostPort)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return nil, err
	}
	ips := t.issuerAddresses(ctx, host)
	last := fmt.Errorf("%s has no address", host)
	if over(ctx) {
		last = context.DeadlineExceeded // Nobody has said that there is none.
	}
	for _, ip := range ips {
		addr := netip.AddrPortFrom(ip, uint16(port))
		if last = t.permit(addr, toFetch); last != nil {
			continue
		}
		conn, _, err := t.env.connect(ctx, addr)
		if err == nil {
			return conn, nil
		}
		last = err
	}
	return nil, last
}

// issuerAddresses asks the agent's resolvers for both families of a host's addresses.
func (t *trace) issuerAddresses(ctx context.Context, host string) []netip.Addr {
	if ip, ok := literalAddr(host, pb.Family_FAMILY_UNSPECIFIED); ok {
		return []netip.Addr{ip}
	}
	types := []uint16{dns.TypeA, dns.TypeAAAA}
	answers := make([][]netip.Addr, len(types))
	var asked sync.WaitGroup
	for i, qtype := range types {
		asked.Add(1)
		t.spawn(func() {
			defer asked.Done()
			answers[i] = t.issuerAddressesOf(ctx, canonical(host), qtype)
		})
	}
	asked.Wait()
	ips := slices.Concat(answers...)
	return ips[:min(len(ips), maxFetchAddrs)]
}

// issuerAddressesOf asks one resolver after the other until one of them knows.
func (t *trace) issuerAddressesOf(ctx context.Context, host string, qtype uint16) []netip.Addr {
	enough := make(chan struct{}) // That a family has no address needs no second look.
	close(enough)
	for _, server := range t.resolvers {
		a := t.ask(ctx, query{
			server: server, name: host, qtype: qtype, role: pb.Role_ROLE_REFERRAL, sends: controlSends, enough: enough,
		})
		if known(a.failure) || over(ctx) {
			return a.addresses
		}
	}
	return nil
}
