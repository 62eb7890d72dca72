package cli_test

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/elsewhere-net/elsewhere/internal/cli"
	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// rulesFile writes the lines of an allowlist.
func rulesFile(t *testing.T, lines ...string) string {
	t.Helper()
	return file(t, "allow.yaml", strings.Join(lines, "\n")+"\n")
}

// TestAnAllowlistIsVerified verifies a file with a real network, and again when a door has changed.
func TestAnAllowlistIsVerified(t *testing.T) {
	i := newInternet(t)
	at := netip.AddrPortFrom(netip.MustParseAddr(webServer), 0)
	shut := closing(t, must[*probetest.Host](t)(probetest.ListenClosed(at))).Addr()
	door := must[*probetest.Host](t)(probetest.Listen(at, probetest.Accept))
	path := rulesFile(
		t, "version: 1", "rules:",
		"  - name: the page", "    target: "+i.plain.String(), "    protocol: http", "    allow: [eu-west]", "    deny: [us-east]",
		"  - name: the database", "    target: "+shut.String(), "    deny: [us-east, {from: eu-west, as: drop}]",
		"  - name: the door", "    target: "+door.Addr().String(), "    allow: [world]",
	)
	got := i.run(t, "allowlist", "verify", path)
	want := `  RULE          REGION   EXPECTED  SEEN                    BLOCK                AGENTS
✓ the page      eu-west  open      open                    -                    1/1
✗ the page      us-east  blocked   open                    -                    1/1
✓ the database  us-east  blocked   tcp_refused             reject_rst           1/1
✗ the database  eu-west  dropped   tcp_refused             reject_rst           1/1
✓ the door      eu-west  open      open                    -                    1/1
✓ the door      us-east  open      open                    -                    1/1
`
	if rows, _, _ := strings.Cut(got.out, "\n\n"); rows+"\n" != want || got.code != cli.ExitFail {
		t.Errorf("exit %d\n%s", got.code, cmp.Diff(want, rows+"\n")+got.err)
	}
	for _, says := range []string{
		"expected blocked: us-east (from agent us-east-1 only) gets 200 OK", "expected dropped: eu-west", "FAIL · 3 rules · 4 as expected, 2 not, 0 not known",
		"asked from, as a firewall sees it:\n  eu-west  eu-west-1  127.0.0.1  private",
	} {
		if !strings.Contains(got.out, says) {
			t.Errorf("no %q in\n%s", says, got.out)
		}
	}
	if err := door.Close(); err != nil {
		t.Fatal(err)
	}
	changed := i.run(t, "allowlist", "verify", path, "--against", "last", "--format", "csv")
	rows, err := csv.NewReader(strings.NewReader(changed.out)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var since []string
	for _, r := range rows[1:] {
		since = append(since, r[0]+" from "+r[1]+": "+r[7])
	}
	if diff := cmp.Diff([]string{
		"the page from eu-west: unchanged", "the page from us-east: unchanged", "the database from us-east: unchanged",
		"the database from eu-west: unchanged", "the door from eu-west: newly broken", "the door from us-east: newly broken",
	}, since); diff != "" {
		t.Error(diff)
	}
	t.Run("formats", func(t *testing.T) { verifiedFormats(t, i, path) })
}

// verifiedFormats holds what machines read of a verification.
func verifiedFormats(t *testing.T, i internet, path string) {
	t.Helper()
	list := &pb.ListMeasurementsResponse{}
	got := i.run(t, "allowlist", "verify", path, "-J")
	if err := protojson.Unmarshal([]byte(got.out), list); err != nil {
		t.Fatal(err)
	}
	if n := len(list.GetMeasurements()); n != 5 || got.code != cli.ExitFail || got.err != "" {
		t.Errorf("%d measurements, exit %d, %s", n, got.code, got.err)
	}
	for _, m := range list.GetMeasurements() {
		if len(m.GetResults()) == 0 || m.GetLedger() == nil {
			t.Errorf("%s has %d results", m.GetId(), len(m.GetResults()))
		}
	}
	if lines := strings.Split(strings.TrimSpace(i.run(t, "allowlist", "verify", path, "--format", "jsonl").out), "\n"); len(lines) != 5 {
		t.Errorf("%d lines", len(lines))
	}
	var doc struct {
		Suites []struct {
			Name     string `xml:"name,attr"`
			Tests    int    `xml:"tests,attr"`
			Failures int    `xml:"failures,attr"`
			Cases    []struct {
				Name string `xml:"name,attr"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal([]byte(i.run(t, "allowlist", "verify", path, "--format", "junit").out), &doc); err != nil {
		t.Fatal(err)
	}
	var suites []string
	for _, s := range doc.Suites {
		suites = append(suites, fmt.Sprintf("%s: %d tests, %d failures, first %q", s.Name, s.Tests, s.Failures, s.Cases[0].Name))
	}
	if diff := cmp.Diff([]string{
		`the page: 2 tests, 1 failures, first "eu-west should find it open"`,
		`the database: 2 tests, 1 failures, first "us-east should find it blocked"`,
		`the door: 2 tests, 2 failures, first "eu-west should find it open"`,
	}, suites); diff != "" {
		t.Error(diff)
	}
}

// TestNothingIsRunForABadAllowlist: the file, the flags and the fleet are looked at first.
func TestNothingIsRunForABadAllowlist(t *testing.T) {
	c := blocked()
	c.agents = []*pb.Agent{{Id: "us-1", Vantage: &pb.Vantage{Region: "us-east"}}}
	w := newWorld(t).at(c.serve(t))
	good := rulesFile(t, "version: 1", "rules:", "  - {target: 'a.example:1', allow: [us-east]}")
	for name, tc := range map[string]struct {
		args []string
		code int
		says string
	}{
		"no file":                       {nil, 2, "verify needs one FILE"},
		"two files":                     {[]string{good, good}, 2, "verify needs one FILE"},
		"a file that is not there":      {[]string{filepath.Join(t.TempDir(), "none.yaml")}, 2, "no such file"},
		"where from":                    {[]string{good, "--from", "JP"}, 2, "--from has no place here"},
		"how many":                      {[]string{good, "-L", "3"}, 2, "--limit has no place here"},
		"an unknown time to compare":    {[]string{good, "--against", "yesterday"}, 2, "it is last"},
		"a comparison as JSON":          {[]string{good, "--against", "last", "-J"}, 2, "exclude each other"},
		"what is wrong with the file":   {[]string{rulesFile(t, "version: 1", "rules:", "  - {target: 'a.example', allow: [us-east], dney: []}")}, 2, "allow.yaml:3:14: target: \"a.example\" has no port"},
		"an address of another family":  {[]string{rulesFile(t, "version: 1", "rules:", "  - {target: '192.0.2.1:1', allow: [us-east]}"), "-6"}, 2, "192.0.2.1 is an IPv4 address"},
		"a selector that means nobody":  {[]string{rulesFile(t, "version: 1", "rules:", "  - {target: 'a.example:1', allow: [mars]}")}, 4, `allow.yaml:3:37: rule "a.example:1": no agent matches "mars"`},
		"a region that is in and out":   {[]string{rulesFile(t, "version: 1", "rules:", "  - {target: 'a.example:1', allow: [us-east], deny: [world]}")}, 2, "us-east (agent us-1) should be blocked by \"world\" and open by \"us-east\""},
		"an unknown command of its own": {[]string{"x", "y", "--nope"}, 2, "--nope"},
	} {
		got := w.run(t, append([]string{"allowlist", "verify"}, tc.args...)...)
		if got.code != tc.code || got.out != "" || !strings.Contains(got.err, tc.says) {
			t.Errorf("%s: exit %d, want %d with %q\n%s%s", name, got.code, tc.code, tc.says, got.out, got.err)
		}
	}
	if len(c.created) != 0 {
		t.Errorf("asked %v", c.created)
	}
}

func TestAnInterruptCancelsEveryDoor(t *testing.T) {
	c := blocked()
	c.agents = []*pb.Agent{{Id: "us-1", Vantage: &pb.Vantage{Region: "us-east"}}}
	told := make(chan struct{})
	var once sync.Once
	c.watch = func(n int, s grpc.ServerStreamingServer[pb.WatchMeasurementResponse]) error {
		if n == 7 { // eight are watched at once, and no more
			once.Do(func() { close(told) })
		}
		<-s.Context().Done()
		return s.Context().Err()
	}
	w := newWorld(t).at(c.serve(t))
	lines := []string{"version: 1", "rules:"}
	for n := range 20 {
		lines = append(lines, fmt.Sprintf("  - {target: 'a.example:%d', allow: [us-east]}", n+1))
	}
	ctx, interrupt := context.WithCancel(t.Context())
	go func() { <-told; interrupt() }()
	got := w.runContext(ctx, "allowlist", "verify", rulesFile(t, lines...))
	if got.code != cli.ExitInterrupted || !strings.Contains(got.err, "interrupted") {
		t.Errorf("exit %d, %s", got.code, got.err)
	}
	if len(c.created) != 8 || len(c.cancelled) != len(c.created) {
		t.Errorf("%d were asked, %d cancelled; want 8", len(c.created), len(c.cancelled))
	}
}

func TestTheSchemaIsPrinted(t *testing.T) {
	got := newWorld(t).run(t, "allowlist", "schema")
	if !json.Valid([]byte(got.out)) || got.code != 0 {
		t.Errorf("exit %d, %s", got.code, got.out)
	}
}

func TestAgentsTellTheirAddresses(t *testing.T) {
	c := blocked()
	c.agents = []*pb.Agent{
		{Id: "us-1", Vantage: &pb.Vantage{Region: "us-east", ObservedAddress: "198.51.100.7", Addresses: []string{"2001:db8::7"}}},
		{Id: "us-2", Vantage: &pb.Vantage{Region: "us-east", ObservedAddress: "198.51.100.7"}},
		{Id: "ap-1", Vantage: &pb.Vantage{Region: "ap-south", ObservedAddress: "10.0.0.7"}},
		{Id: "ap-2", Vantage: &pb.Vantage{Region: "ap-south"}},
	}
	for _, a := range c.agents {
		a.Vantage.Ipv4, a.Vantage.Ipv6 = true, true
	}
	w := newWorld(t).at(c.serve(t))
	for line, want := range map[string]string{
		"agents --addresses=plain":    "10.0.0.7/32\n198.51.100.7/32\n2001:db8::7/128\n",
		"agents -6 --addresses=plain": "2001:db8::7/128\n",
		"agents --addresses --format csv": `agent,region,country,provider,cidr,note
us-1,us-east,,,198.51.100.7/32,
us-1,us-east,,,2001:db8::7/128,
us-2,us-east,,,198.51.100.7/32,
ap-1,ap-south,,,10.0.0.7/32,private: no firewall outside of its network sees it
ap-2,ap-south,,,,not known; declare it by the agent's --address
`,
	} {
		if got := w.run(t, strings.Fields(line)...); got.out != want || got.code != 0 {
			t.Errorf("%s: exit %d\n%s", line, got.code, cmp.Diff(want, got.out)+got.err)
		}
	}
	if got := w.run(t, "agents", "--addresses=all"); got.code != cli.ExitUsage {
		t.Errorf("exit %d, want 2", got.code)
	}
	if plain, whole := w.run(t, "agents", "-J"), w.run(t, "agents", "-J", "--addresses"); plain.out != whole.out {
		t.Error("--addresses changes the JSON")
	}
}

// TestCover compares files in each format, without a coordinator.
func TestCover(t *testing.T) {
	ranges := file(t, "ip-ranges.json", `{"createDate": "2026-11-20-16-33-06", "ipv6_prefixes": [], "prefixes": [
		{"ip_prefix": "203.0.113.0/24", "service": "CLOUDFRONT_ORIGIN_FACING"}, {"ip_prefix": "198.51.100.0/24", "service": "CLOUDFRONT_ORIGIN_FACING"}]}`)
	some, all := file(t, "rules.txt", "203.0.113.0/24\n192.0.2.1\n"), file(t, "all.txt", "203.0.113.0/24\n198.51.100.0/24\n")
	groups := file(t, "groups.json", `{"SecurityGroups": [{"GroupId": "sg-1", "IpPermissions": [
		{"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "PrefixListIds": [{"PrefixListId": "pl-1"}]}]}]}`)
	w := newWorld(t)
	for name, tc := range map[string]struct {
		args []string
		code int
		says string
	}{
		"a range is missing": {[]string{some}, 1, `cloudfront · CLOUDFRONT_ORIGIN_FACING · published 2026-11-20 16:33 UTC · port 443
✗ IPv4  not all of 2 ranges admitted, 1 block missing
  missing  198.51.100.0/24
  surplus  192.0.2.1/32
? IPv6  the provider's ranges are not known
  WARN whether IPv6 is covered is not known: there is no IPv6 in CLOUDFRONT_ORIGIN_FACING.
NOT COVERED: admit what is missing, or part of the provider stands outside
`},
		"everybody is admitted": {[]string{file(t, "wide", "0.0.0.0/0\n")}, 0, `✓ IPv4  all of 2 ranges admitted
  surplus  0.0.0.0/0, but for the provider's ranges in it
? IPv6`},
		"part of a range, and a block beside it": {[]string{file(t, "part", "198.51.96.0/21\n203.0.113.0/25\n192.0.2.1\n")}, 1, `✗ IPv4  not all of 2 ranges admitted, 1 block missing
  missing  203.0.113.128/25
  surplus  198.51.96.0/21, but for the provider's ranges in it
  surplus  192.0.2.1/32
? IPv6`},
		"nothing is missing":              {[]string{all}, 0, "COVERED: every range that is known is admitted\n"},
		"a prefix list of the CDN's":      {[]string{groups, "--prefix-list", "pl-1"}, 0, "sg-1  weighs 55 for IPv4 and 0 for IPv6, of at most 60 each\n"},
		"a prefix list that is not known": {[]string{groups}, 3, "NOT KNOWN"},
		"JSON":                            {[]string{some, "-J"}, 1, `"coverage": "COVERAGE_PARTIAL"`},
		"CSV":                             {[]string{some, "--format", "csv"}, 1, "family,kind,cidr\nIPv4,missing,198.51.100.0/24\nIPv4,surplus,192.0.2.1/32\n"},
		"JUnit":                           {[]string{some, "--format", "junit"}, 1, `<testsuite name="allowlist cover cloudfront" tests="2" failures="1" errors="0" skipped="1"`},
		"a provider that is not known":    {[]string{some, "--provider", "acme"}, 2, `there is no profile "acme"`},
		"another provider's ranges":       {[]string{some, "--provider", "cloudflare"}, 2, "does not list cloudflare"},
		"port 0":                          {[]string{some, "--port", "0"}, 2, "begin at 1"},
		"rules that are not there":        {[]string{filepath.Join(t.TempDir(), "none")}, 2, "no such file"},
	} {
		got := w.run(t, append([]string{"allowlist", "cover", "--ranges", ranges}, tc.args...)...)
		if got.code != tc.code || !strings.Contains(got.out+got.err, tc.says) {
			t.Errorf("%s: exit %d, want %d with %q\n%s%s", name, got.code, tc.code, tc.says, got.out, got.err)
		}
	}
	if got := w.run(t, "allowlist", "cover", some); got.code != 2 || !strings.Contains(got.err, "cloudfront publishes them at https://ip-ranges.amazonaws.com/") {
		t.Errorf("without ranges: exit %d, %s", got.code, got.err)
	}
}
