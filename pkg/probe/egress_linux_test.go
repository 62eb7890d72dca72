package probe

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest/space"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// cloud has a metadata service next door, and counts the packets to it on both sides of the link.
const cloud = `
mkdir -p /run/netns
mount --make-rprivate /
mount -t tmpfs none /run/netns
ip link set lo up
ip netns add cloud
ip link add name near type veth peer name far netns cloud
ip addr add 169.254.169.1/24 dev near
ip addr add fd00:ec2::1/64 dev near nodad
ip link set near up
ip -n cloud link set lo up
ip -n cloud addr add 169.254.169.254/24 dev far
ip -n cloud addr add fd00:ec2::254/64 dev far nodad
ip -n cloud link set far up
nft -f - <<'END'
table inet t {
	chain output {
		type filter hook output priority 0;
		ip daddr 169.254.169.254 counter
		meta l4proto { tcp, udp } ip6 daddr fd00:ec2::254 counter
	}
}
END
ip netns exec cloud nft -f - <<'END'
table inet t {
	chain input {
		type filter hook input priority 0;
		ip daddr 169.254.169.254 counter
		meta l4proto { tcp, udp } ip6 daddr fd00:ec2::254 counter
	}
}
END
`

// TestMetadata: however a job leads to a cloud's metadata service, not a packet goes there, even if the
// operator allowed ranges that hold it.
func TestMetadata(t *testing.T) {
	if !space.Own(t) {
		return
	}
	space.Build(t, cloud)
	space.Listen(t, "cloud", ":80")
	for _, ip := range []string{"169.254.169.254", "fd00:ec2::254"} { // The proof that packets would be seen.
		for reaches(t, ip) != nil && t.Context().Err() == nil {
		}
	}
	before := packets(t)
	for now := packets(t); !maps.Equal(now, before); now = packets(t) { // The last one may be on its way.
		before = now
	}
	for where, n := range before {
		if n == 0 {
			t.Fatalf("%s: the counter does not count", where)
		}
	}
	env, specs := leads(t)
	for _, egress := range []Egress{{Allow: loopback}, {Allow: prefixes("127.0.0.0/8", "::1/128", "169.254.0.0/16", "fc00::/7")}} {
		world := *env
		world.Egress = egress
		all(t, func(s lead) string { return s.name }, specs, func(t *testing.T, s lead) func(*testing.T) {
			r := Run(context.Background(), &world, newJob(s.spec, 20*time.Second))
			return func(t *testing.T) {
				if !strings.Contains(r.String(), s.says) {
					t.Errorf("want %q in %v", s.says, r)
				}
			}
		})
	}
	for where, n := range packets(t) {
		if n != before[where] {
			t.Errorf("%s: %d packets", where, n-before[where])
		}
	}
}

// lead is a job that leads to a metadata service, and what its Result says.
type lead struct {
	name string
	spec *pb.Spec
	says string
}

// leads makes a world with a host whose certificate, redirects and names lead there.
func leads(t *testing.T) (*Env, []lead) {
	t.Helper()
	const denied, service = "FAILURE_AGENT_POLICY_DENIED", "metadata service"
	cert, roots := issue(t, probetest.CAOptions{}, probetest.Leaf{
		Names: []string{"www.example"}, AIA: "http://169.254.169.254/ca.crt", Serve: probetest.LeafOnly,
	}, true)
	host := must[*probetest.Host](t)(probetest.ListenTLS(at("127.0.0.2"), serverConfig(cert)))
	web := must[*probetest.Host](t)(probetest.ListenHTTP(at("127.0.0.3"), nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		to := "http://169.254.169.254/latest/meta-data/"
		if r.URL.Path == "/name" {
			to = "http://a.example/latest/meta-data/"
		}
		http.Redirect(w, r, to, http.StatusFound)
	})))
	env := newEnv(t, probetest.Zone{
		"www.example": {Records: []string{"www.example. 60 IN A 127.0.0.2"}},
		"web.example": {Records: []string{"web.example. 60 IN A 127.0.0.3"}},
		"a.example":   {Records: []string{"a.example. 0 IN A 169.254.169.254", "a.example. 0 IN AAAA fd00:ec2::254"}},
		"c.example":   {Records: []string{"c.example. 0 IN CNAME a.example.", "a.example. 0 IN A 169.254.169.254"}},
	})
	env.Roots = roots
	lookup := dnsSpec("www.example", "A")
	lookup.GetDns().Resolver = "169.254.169.254"
	path := tcpSpec("169.254.169.254", 80)
	path.GetTcp().Path = true
	redirect := func(path string) *pb.Spec {
		return httpSpec(&pb.HTTPSpec{Url: fmt.Sprintf("http://web.example:%d%s", web.Addr().Port(), path), MaxRedirects: 5})
	}
	return env, []lead{
		{"a literal", tcpSpec("169.254.169.254", 80), denied},
		{"a mapped literal", tcpSpec("::ffff:169.254.169.254", 80), denied},
		{"an IPv6 literal", tcpSpec("fd00:ec2::254", 80), denied},
		{"a path", path, denied},
		{"a DNS answer", tcpSpec("a.example", 80), denied},
		{"a CNAME", tlsSpec("c.example", 80, ""), denied},
		{"a DNS server", lookup, denied},
		{"a web page", httpSpec(&pb.HTTPSpec{Url: "http://169.254.169.254/latest/meta-data/"}), denied},
		{"a redirect", redirect("/"), service},
		{"a redirect to a name", redirect("/name"), service},
		{"an issuer", tlsSpec("www.example", host.Addr().Port(), ""), "FAILURE_CERT_CHAIN_INCOMPLETE"},
	}
}

// reaches connects without asking anybody.
func reaches(t *testing.T, ip string) error {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	conn, _, err := Connect(ctx, netip.AddrPortFrom(netip.MustParseAddr(ip), 80), ConnectOptions{})
	if err == nil {
		abandon(conn)
	}
	return err
}

var counted = regexp.MustCompile(`(daddr \S+) counter packets (\d+)`)

// packets returns the counters of both sides.
func packets(t *testing.T) map[string]int {
	t.Helper()
	counts := map[string]int{}
	for _, namespace := range []string{"", "cloud"} {
		command := "nft list ruleset"
		if namespace != "" {
			command = "ip netns exec " + namespace + " " + command
		}
		out, err := exec.CommandContext(t.Context(), "sh", "-c", command).Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range counted.FindAllStringSubmatch(string(out), -1) {
			var n int
			if _, err := fmt.Sscan(m[2], &n); err != nil {
				t.Fatal(err)
			}
			counts[namespace+" "+m[1]] = n
		}
	}
	if len(counts) != 4 {
		t.Fatalf("%d counters: %v", len(counts), counts)
	}
	return counts
}
