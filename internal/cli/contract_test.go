package cli_test

import (
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/elsewhere-net/elsewhere/internal/cli"
)

// TestAWrongRequestIsOneLineAndExit2 runs each wrong command line with a coordinator, which must not
// be asked, and without one, which must make no difference.
func TestAWrongRequestIsOneLineAndExit2(t *testing.T) {
	c := blocked()
	address := c.serve(t)
	long := strings.Repeat("a", 70)
	for name, tc := range map[string]struct {
		args string
		env  string // NAME=value
		says string
	}{
		"an unknown command":                      {args: "ping example.com", says: `"ping" is not a command`},
		"a command that is not built yet":         {args: "http https://example.com", says: `"http" is not a command`},
		"a command with a typing error":           {args: "tlss example.com", says: `did you mean "tls"`},
		"an unknown flag":                         {args: "tcp example.com:443 --nope", says: "unknown flag: --nope"},
		"an unknown flag before the command":      {args: "--nope", says: "unknown flag: --nope"},
		"an unknown letter":                       {args: "dns example.com -x", says: "'x'"},
		"a flag without its value":                {args: "tcp example.com:443 --limit", says: "--limit"},
		"a flag of another check":                 {args: "tls example.com --expect open", says: "--expect"},
		"no name":                                 {args: "dns", says: "needs a NAME"},
		"an empty name":                           {args: "dns ''", says: "the name is empty"},
		"an empty label":                          {args: "dns a..example.com", says: "empty label"},
		"a label of 70 bytes":                     {args: "dns " + long + ".example.com", says: "70 bytes"},
		"a name of more than 253 bytes":           {args: "dns " + strings.Repeat("abcdefg.", 32) + "example", says: "253"},
		"a URL for a name":                        {args: "dns https://example.com/", says: "URL"},
		"a name with a port":                      {args: "dns example.com:53", says: "colon"},
		"an address for a name":                   {args: "dns 192.0.2.1", says: "PTR"},
		"an unknown type":                         {args: "dns example.com NOPE", says: `"NOPE" is not a record type`},
		"a type beyond the numbers":               {args: "dns example.com TYPE70000", says: "TYPE70000"},
		"a transfer":                              {args: "dns example.com AXFR", says: "AXFR cannot be asked"},
		"a third word":                            {args: "dns example.com A extra", says: `"extra"`},
		"a resolver by name":                      {args: "dns example.com @dns.example", says: "IP address"},
		"an empty resolver":                       {args: "dns example.com @", says: "resolver"},
		"a resolver's port 0":                     {args: "dns example.com @192.0.2.1:0", says: "resolver"},
		"two resolvers":                           {args: "dns example.com @192.0.2.1 @192.0.2.2", says: "twice"},
		"an option of dig that is not there":      {args: "dns example.com +trace", says: `"+trace" is not supported`},
		"+short as JSON":                          {args: "dns example.com +short -J", says: "+short and --format json"},
		"+short of a connect":                     {args: "tcp example.com:443 +short", says: "+short belongs to dns"},
		"an empty expectation":                    {args: "dns example.com --expect ''", says: "--expect is empty"},
		"an IPv6 address for A":                   {args: "dns example.com --expect 2001:db8::1", says: "not an IPv4 address"},
		"too many expectations":                   {args: "dns example.com TXT" + strings.Repeat(" --expect x", 33), says: "expect"},
		"a target without a port":                 {args: "tcp example.com", says: "has no port"},
		"no target":                               {args: "tcp", says: "needs HOST:PORT"},
		"an empty target":                         {args: "tls ''", says: "empty"},
		"an empty host":                           {args: "tcp :443", says: "the host is empty"},
		"an empty port":                           {args: "tcp example.com:", says: `port ""`},
		"port 99999":                              {args: "tcp example.com:99999", says: `port "99999"`},
		"port 0":                                  {args: "tls example.com:0", says: `port "0"`},
		"a negative port":                         {args: "tcp example.com:-1", says: `port "-1"`},
		"a service for a port":                    {args: "tcp example.com:https", says: `port "https"`},
		"IPv6 without brackets":                   {args: "tcp 2001:db8::1", says: "no port"},
		"too many colons":                         {args: "tcp example.com:1:2", says: "too many colons"},
		"half a bracket":                          {args: "tcp [2001:db8::1:443", says: "[2001:db8::1]:443"},
		"a name in brackets":                      {args: "tcp [example.com]:443", says: "[2001:db8::1]:443"},
		"a zone":                                  {args: "tcp [fe80::1%eth0]:443", says: "zone"},
		"an address that is none":                 {args: "tcp 192.0.2.300:443", says: "do not end in a number"},
		"a path":                                  {args: "tls example.com/path", says: "not a name"},
		"two targets":                             {args: "tcp example.com:443 example.org:443", says: `unexpected word "example.org:443"`},
		"a resolver for a connect":                {args: "tcp example.com:443 @192.0.2.1", says: "@RESOLVER belongs to dns"},
		"an expectation that is not known":        {args: "tcp example.com:443 --expect shut", says: "open or blocked"},
		"an expectation that is empty":            {args: "tcp example.com:443 --expect ''", says: "--expect is empty"},
		"an address for a server name":            {args: "tls 192.0.2.1 --servername 192.0.2.1", says: "--servername"},
		"an empty server name":                    {args: "tls 192.0.2.1 --servername ''", says: "--servername is empty"},
		"from without a place":                    {args: "tcp example.com:443 from", says: "'from' needs a place"},
		"from twice":                              {args: "tcp example.com:443 from JP from DE", says: "twice"},
		"from in words and as a flag":             {args: "tcp example.com:443 from JP -F DE", says: "said twice"},
		"an empty --from":                         {args: "tcp example.com:443 --from ''", says: "--from is empty"},
		"a place with an empty part":              {args: "tcp example.com:443 from Germany++AWS", says: "empty part"},
		"a place of too many bytes":               {args: "tcp example.com:443 from " + strings.Repeat("a", 1025), says: "from"},
		"a limit of 0":                            {args: "tcp example.com:443 -L 0", says: "1 to 10000"},
		"a limit beyond the bound":                {args: "tcp example.com:443 --limit 10001", says: "1 to 10000"},
		"a limit that is no number":               {args: "tcp example.com:443 --limit ten", says: `--limit is "ten"`},
		"both families":                           {args: "tcp example.com:443 -4 -6", says: "-4 and -6"},
		"an address of the other family":          {args: "tcp 192.0.2.1:443 -6", says: "IPv4 address"},
		"an IPv6 address for -4":                  {args: "tls [2001:db8::1] -4", says: "IPv6 address"},
		"a timeout that is none":                  {args: "tcp example.com:443 --timeout soon", says: `--timeout is "soon"`},
		"a timeout of less than a second":         {args: "tcp example.com:443 --timeout 10ms", says: "1s to 10m"},
		"a timeout of more than ten minutes":      {args: "tcp example.com:443 --timeout 601", says: "1s to 10m"},
		"an unknown format":                       {args: "tcp example.com:443 --format yaml", says: `"yaml" is not a format`},
		"-J beside another format":                {args: "tcp example.com:443 --format csv -J", says: "exclude each other"},
		"a coordinator without a port":            {args: "tcp example.com:443 --coordinator localhost", says: "HOST:PORT"},
		"a CA file that is not there":             {args: "tcp example.com:443 --insecure=false --ca /nonexistent/ca.pem", says: "CA file"},
		"a bad limit in the environment":          {args: "tcp example.com:443", env: "ELSEWHERE_LIMIT=many", says: `ELSEWHERE_LIMIT is "many"`},
		"a bad format in the environment":         {args: "tcp example.com:443", env: "ELSEWHERE_FORMAT=yaml", says: "ELSEWHERE_FORMAT"},
		"a bad timeout in the environment":        {args: "tcp example.com:443", env: "ELSEWHERE_TIMEOUT=x", says: "ELSEWHERE_TIMEOUT"},
		"a bad switch in the environment":         {args: "tcp example.com:443", env: "ELSEWHERE_IPV4=perhaps", says: `ELSEWHERE_IPV4 is "perhaps"`},
		"a bad place in the environment":          {args: "tcp example.com:443", env: "ELSEWHERE_FROM=a,,b", says: "ELSEWHERE_FROM"},
		"a bad coordinator in the environment":    {args: "tcp example.com:443", env: "ELSEWHERE_COORDINATOR=x", says: "ELSEWHERE_COORDINATOR"},
		"show without an id":                      {args: "show", says: "which measurement"},
		"show with two ids":                       {args: "show " + theID + " " + theID, says: "one measurement at a time"},
		"show with something that is no id":       {args: "show 4711", says: "not a measurement's id"},
		"watch with something that is no id":      {args: "watch ../../etc", says: "not a measurement's id"},
		"show last when there is none":            {args: "show last", says: "no last measurement"},
		"agents with a word":                      {args: "agents all", says: `unexpected word "all"`},
		"agents as JUnit":                         {args: "agents --format junit", says: "junit is a format for measurements"},
		"measurements with a word":                {args: "measurements all", says: `unexpected word "all"`},
		"version with a word":                     {args: "version please", says: `unexpected word "please"`},
		"a shell that is not known":               {args: "completion elvish", says: `"elvish" is not a command`},
		"help for what is not there":              {args: "help nosuch", says: `"nosuch" is not a command`},
		"a name that would steer the terminal":    {args: "dns \x1b[31mred", says: `\x1b[31mred`},
		"a command that would steer the terminal": {args: "\x1b[31mred", says: `\x1b[31mred`},
	} {
		t.Run(name, func(t *testing.T) {
			for _, at := range []string{address, nobody(t)} {
				w := newWorld(t).at(at)
				if k, v, ok := strings.Cut(tc.env, "="); ok {
					w[k] = v
				}
				got := w.run(t, fields(tc.args)...)
				if got.code != cli.ExitUsage {
					t.Errorf("exit %d, want 2", got.code)
				}
				if got.out != "" {
					t.Errorf("stdout %q, want nothing", got.out)
				}
				if strings.Count(got.err, "\n") != 1 || !strings.Contains(got.err, tc.says) || strings.Contains(got.err, "\x1b") {
					t.Errorf("stderr %q, want one line that says %q", got.err, tc.says)
				}
			}
			if len(c.created) != 0 {
				t.Errorf("something was asked: %v", c.created)
			}
		})
	}
}

// fields splits a command line at spaces; ” is an empty word.
func fields(line string) []string {
	args := strings.Fields(line)
	for i := range args {
		if args[i] == "''" {
			args[i] = ""
		}
	}
	return args
}

// nobody is an address where nobody listens.
func nobody(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestARefusalOfTheCoordinatorIsOneLineAndItsExitCode(t *testing.T) {
	bad, err := status.New(codes.InvalidArgument, "bad").WithDetails(&errdetails.BadRequest{
		FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "from", Description: "no such\nplace \x1b[2J"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		err  error
		code int
		says string
	}{
		"a bad field is named":          {bad.Err(), 2, `from: no such place \x1b[2J`},
		"a bad request without fields":  {status.Error(codes.InvalidArgument, "spec is missing"), 2, "spec is missing"},
		"nobody matches":                {status.Error(codes.FailedPrecondition, "no agent matches \"Atlantis\""), 4, "Atlantis"},
		"too much is asked":             {status.Error(codes.ResourceExhausted, "too many open measurements"), 4, "too many"},
		"a token is missing":            {status.Error(codes.Unauthenticated, "no token"), 4, "--token"},
		"a token is not enough":         {status.Error(codes.PermissionDenied, "scope"), 4, "does not allow"},
		"it takes too long":             {status.Error(codes.DeadlineExceeded, "deadline"), 4, "in time"},
		"the log cannot be written":     {status.Error(codes.Unavailable, "disk full"), 4, "disk full"},
		"an older coordinator":          {status.Error(codes.Unimplemented, "unknown method"), 4, "unknown method"},
		"the coordinator has a problem": {status.Error(codes.Internal, "oops"), 4, "oops"},
	} {
		t.Run(name, func(t *testing.T) {
			c := blocked()
			c.refuse = tc.err
			got := newWorld(t).at(c.serve(t)).run(t, "tcp", "example.com:443", "-J")
			if got.code != tc.code || got.out != "" {
				t.Errorf("exit %d, want %d; stdout %q", got.code, tc.code, got.out)
			}
			if strings.Count(got.err, "\n") != 1 || !strings.Contains(got.err, tc.says) || strings.Contains(got.err, "\x1b") {
				t.Errorf("stderr %q, want one line with %q", got.err, tc.says)
			}
		})
	}
}

func TestWithoutACoordinatorAllThatNeedOneExit4(t *testing.T) {
	for _, line := range []string{
		"dns example.com", "tcp example.com:443", "tls example.com -J", "agents", "measurements", "show " + theID, "watch " + theID,
	} {
		w := newWorld(t).at(nobody(t))
		for _, secure := range []string{"true", "false"} {
			w["ELSEWHERE_INSECURE"] = secure
			got := w.run(t, fields(line)...)
			if got.code != cli.ExitNetwork || got.out != "" || strings.Count(got.err, "\n") != 1 || !strings.Contains(got.err, "no coordinator at 127.0.0.1") {
				t.Errorf("%s: exit %d, stdout %q, stderr %q", line, got.code, got.out, got.err)
			}
		}
	}
}

func TestAnUnknownMeasurementIsExit2(t *testing.T) {
	w := newWorld(t).at(blocked().serve(t))
	for _, line := range []string{"show ", "watch "} {
		got := w.run(t, fields(line+strings.Repeat("0", 26))...)
		if got.code != cli.ExitUsage || got.out != "" || !strings.Contains(got.err, "there is no measurement") {
			t.Errorf("%s: exit %d, %q", line, got.code, got.err)
		}
	}
}

func TestAFlagBeatsTheEnvironment(t *testing.T) {
	c := blocked()
	w := newWorld(t).at(c.serve(t))
	for k, v := range map[string]string{"FROM": "JP", "LIMIT": "3", "IPV6": "1", "TIMEOUT": "7", "FORMAT": "csv"} {
		w["ELSEWHERE_"+k] = v
	}
	byEnv := w.run(t, "tcp", "example.com:443")
	byFlag := w.run(t, "tcp", "example.com:443", "from", "DE", "-L", "4", "-4", "--timeout", "8s", "-J")
	var got []any
	for _, req := range c.created {
		got = append(got, req.GetFrom(), req.GetLimit(), req.GetSpec().GetFamily().String(), req.GetTimeout().AsDuration().String())
	}
	want := []any{"JP", int32(3), "FAMILY_IPV6", "7s", "DE", int32(4), "FAMILY_IPV4", "8s"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if !strings.HasPrefix(byEnv.out, "measurement,agent,") || !strings.HasPrefix(byFlag.out, "{") {
		t.Errorf("formats: %.20q and %.20q", byEnv.out, byFlag.out)
	}
	w["ELSEWHERE_IPV4"] = "1"
	if got := w.run(t, "tcp", "example.com:443"); got.code != cli.ExitUsage {
		t.Errorf("both families by the environment: exit %d, want 2", got.code)
	}
}
