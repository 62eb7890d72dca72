package cli_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/elsewhere-net/elsewhere/internal/cli"
	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
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
		"an unknown command":                        {args: "ping example.com", says: `"ping" is not a command`},
		"a command that is not built yet":           {args: "monitor example.com", says: `"monitor" is not a command`},
		"a command with a typing error":             {args: "tlss example.com", says: `did you mean "tls"`},
		"an unknown flag":                           {args: "tcp example.com:443 --nope", says: "unknown flag: --nope"},
		"an unknown flag before the command":        {args: "--nope", says: "unknown flag: --nope"},
		"an unknown letter":                         {args: "dns example.com -y", says: "'y'"},
		"a flag without its value":                  {args: "tcp example.com:443 --limit", says: "--limit"},
		"a flag of another check":                   {args: "tls example.com --path", says: "--path"},
		"no name":                                   {args: "dns", says: "needs a NAME"},
		"an empty name":                             {args: "dns ''", says: "the name is empty"},
		"an empty label":                            {args: "dns a..example.com", says: "empty label"},
		"a label of 70 bytes":                       {args: "dns " + long + ".example.com", says: "70 bytes"},
		"a name of more than 253 bytes":             {args: "dns " + strings.Repeat("abcdefg.", 32) + "example", says: "253"},
		"a URL for a name":                          {args: "dns https://example.com/", says: "URL"},
		"a name with a port":                        {args: "dns example.com:53", says: "colon"},
		"an address for a name":                     {args: "dns 192.0.2.1", says: "PTR"},
		"an unknown type":                           {args: "dns example.com NOPE", says: `"NOPE" is not a record type`},
		"a type beyond the numbers":                 {args: "dns example.com TYPE70000", says: "TYPE70000"},
		"a transfer":                                {args: "dns example.com AXFR", says: "AXFR cannot be asked"},
		"a third word":                              {args: "dns example.com A extra", says: `"extra"`},
		"an empty server":                           {args: "dns example.com @", says: "not a server"},
		"a server's port 0":                         {args: "dns example.com @192.0.2.1:0", says: `port "0"`},
		"a server that is a URL":                    {args: "dns example.com @https://dns.example/dns-query", says: "not a server"},
		"two resolvers":                             {args: "dns example.com @192.0.2.1 @192.0.2.2", says: "twice"},
		"an option of dig that is not there":        {args: "dns example.com +edns=0", says: `"+edns" is not supported; supported are +dnssec +cdflag`},
		"another one, turned off":                   {args: "dns example.com +noall", says: `"+noall" is not supported`},
		"an option that is none":                    {args: "dns example.com +", says: "not supported"},
		"an abbreviation of two options":            {args: "dns example.com +t", says: "short for more than one; write +tcp, +tls"},
		"one that could be another one of dig's":    {args: "dns example.com +q", says: "write +quic in full"},
		"an option with a value that it has not":    {args: "dns example.com +tcp=yes", says: "takes no value"},
		"an option without its value":               {args: "dns example.com +bufsize", says: "needs a value; write +bufsize="},
		"an option with an empty value":             {args: "dns example.com +subnet=", says: "needs a value; write +subnet="},
		"a value for what is turned off":            {args: "dns example.com +nosubnet=0", says: "takes no value"},
		"two ways at once":                          {args: "dns example.com +tcp +tls", says: "+tcp and +tls exclude each other"},
		"two methods at once":                       {args: "dns example.com +https-get +https-post", says: "+https-get and +https-post exclude"},
		"a path without a slash":                    {args: "dns example.com +https=dns-query", says: "begins with a slash"},
		"a path with a question mark":               {args: "dns example.com +https=/q?x", says: "https_path"},
		"a certificate's name over UDP":             {args: "dns example.com +tls-hostname=dns.example", says: "add one of them"},
		"a certificate's name that is none":         {args: "dns example.com +tls +tls-hostname=a..b", says: "empty label"},
		"a size of 511":                             {args: "dns example.com +bufsize=511", says: "512 to 65535"},
		"a size of 65536":                           {args: "dns example.com +bufsize=65536", says: "512 to 65535"},
		"a network that is none":                    {args: "dns example.com +subnet=192.0.2.0/33", says: "not a network"},
		"a network that is a name":                  {args: "dns example.com +subnet=example", says: "not a network"},
		"a class that is not served":                {args: "dns example.com A HS", says: `class "HS" is not supported`},
		"two types":                                 {args: "dns example.com A -t MX", says: "too many"},
		"two classes":                               {args: "dns example.com CH IN TXT", says: "too many"},
		"a name beside -x":                          {args: "dns example.com -x 192.0.2.1", says: `"example.com" is asked too`},
		"a name for -x":                             {args: "dns -x example.com", says: "-x \"example.com\" is not an IP address"},
		"another type beside -x":                    {args: "dns -x 192.0.2.1 A", says: "-x asks for PTR"},
		"a public resolver by name":                 {args: "dns example.com --public=dns.example", says: "not a resolver's address"},
		"an empty list of public resolvers":         {args: "dns example.com --public=", says: "--public is empty"},
		"too many public resolvers":                 {args: "dns example.com --public=" + strings.Repeat("192.0.2.1,", 16) + "192.0.2.1", says: "public_resolvers"},
		"+short as JSON":                            {args: "dns example.com +short -J", says: "+short and --format json"},
		"+short of a connect":                       {args: "tcp example.com:443 +short", says: `"+short" belongs to dns`},
		"an empty expectation":                      {args: "dns example.com --expect ''", says: "--expect is empty"},
		"an IPv6 address for A":                     {args: "dns example.com --expect 2001:db8::1", says: "not an IPv4 address"},
		"too many expectations":                     {args: "dns example.com TXT" + strings.Repeat(" --expect x", 33), says: "expect"},
		"a target without a port":                   {args: "tcp example.com", says: "has no port"},
		"no target":                                 {args: "tcp", says: "needs HOST:PORT"},
		"an empty target":                           {args: "tls ''", says: "empty"},
		"an empty host":                             {args: "tcp :443", says: "the host is empty"},
		"an empty port":                             {args: "tcp example.com:", says: `port ""`},
		"port 99999":                                {args: "tcp example.com:99999", says: `port "99999"`},
		"port 0":                                    {args: "tls example.com:0", says: `port "0"`},
		"a negative port":                           {args: "tcp example.com:-1", says: `port "-1"`},
		"a service for a port":                      {args: "tcp example.com:https", says: `port "https"`},
		"IPv6 without brackets":                     {args: "tcp 2001:db8::1", says: "no port"},
		"too many colons":                           {args: "tcp example.com:1:2", says: "too many colons"},
		"half a bracket":                            {args: "tcp [2001:db8::1:443", says: "[2001:db8::1]:443"},
		"a name in brackets":                        {args: "tcp [example.com]:443", says: "[2001:db8::1]:443"},
		"a zone":                                    {args: "tcp [fe80::1%eth0]:443", says: "zone"},
		"an address that is none":                   {args: "tcp 192.0.2.300:443", says: "do not end in a number"},
		"a path":                                    {args: "tls example.com/path", says: "not a name"},
		"two targets":                               {args: "tcp example.com:443 example.org:443", says: `unexpected word "example.org:443"`},
		"a resolver for a connect":                  {args: "tcp example.com:443 @192.0.2.1", says: "@SERVER belongs to dns"},
		"an expectation that is not known":          {args: "tcp example.com:443 --expect shut", says: "open or blocked"},
		"an expectation of the way and of the page": {args: "http https://example.com/ --expect open --expect-status 200", says: "leave out one of them"},
		"an expectation that is empty":              {args: "tcp example.com:443 --expect ''", says: "--expect is empty"},
		"an address for a server name":              {args: "tls 192.0.2.1 --servername 192.0.2.1", says: "--servername"},
		"an empty server name":                      {args: "tls 192.0.2.1 --servername ''", says: "--servername is empty"},
		"a version of TLS that is none":             {args: "tls example.com --tls-version 1.4", says: `--tls-version "1.4" is not known`},
		"an empty item of a list":                   {args: "tls example.com --alpn h2,,http/1.1", says: "empty item"},
		"a list of suites with a command":           {args: "tls example.com --ciphers ALL:!aNULL", says: `--ciphers: "ALL" is no suite`},
		"a group that is not known":                 {args: "tls example.com --groups x25519:x25518", says: `--groups: "x25518" is no group`},
		"an empty list":                             {args: "tls example.com --groups ''", says: "--groups is empty"},
		"a name to compare that is none":            {args: "tls example.com --name a..b", says: "--name \"a..b\" has an empty label"},
		"too many names to compare":                 {args: "tls example.com" + strings.Repeat(" --name a", 9), says: "names"},
		"no URL":                                    {args: "http", says: "http needs URL"},
		"an empty URL":                              {args: "http ''", says: "the URL is empty"},
		"a URL without a scheme":                    {args: "http example.com/x", says: `write "https://example.com/x" or "http://example.com/x"`},
		"a scheme that is not spoken":               {args: "http ftp://example.com/", says: "it is http or https"},
		"a URL without a host":                      {args: "http https:///x", says: "has no host"},
		"a URL with a user":                         {args: "http https://user:secret@example.com/", says: "has a user"},
		"a URL with a fragment":                     {args: "http https://example.com/#top", says: "fragment"},
		"a URL with a space":                        {args: "http https://example.com/a␣b", says: "%20"},
		"a URL with half an escape":                 {args: "http https://example.com/%zz", says: "hexadecimal"},
		"a URL with port 0":                         {args: "http https://example.com:0/", says: `port "0"`},
		"a URL with an address that is none":        {args: "http https://192.0.2.300/", says: "do not end in a number"},
		"a URL with IPv6 without brackets":          {args: "http https://2001:db8::1/", says: "in brackets"},
		"a URL of 9 KiB":                            {args: "http https://example.com/" + strings.Repeat("a", 9<<10), says: "http.url"},
		"a URL of the other family":                 {args: "http http://192.0.2.1:8080/ -6", says: "IPv4 address"},
		"a method that changes things":              {args: "http https://example.com/ -X POST", says: `-X "POST" is not supported`},
		"a Host that is none":                       {args: "http https://example.com/ --host-header a/b", says: "--host-header"},
		"a header field without a colon":            {args: "http https://example.com/ -H Accept", says: "NAME: VALUE"},
		"a header field with a space in its name":   {args: "http https://example.com/ -H X␣Y:␣z", says: "NAME: VALUE"},
		"a header field of two lines":               {args: "http https://example.com/ -H X:␣y␍␊Z:␣z", says: "control character"},
		"Host as a header field":                    {args: "http https://example.com/ -H host:␣a", says: "--host-header"},
		"a field of the connection":                 {args: "http https://example.com/ -H Transfer-Encoding:chunked", says: "connection's own"},
		"two versions of HTTP":                      {args: "http https://example.com/ --http1.1 --http2", says: "--http1.1 and --http2 exclude"},
		"HTTP/2 in clear":                           {args: "http http://example.com/ --http2", says: "over TLS alone"},
		"a server name without TLS":                 {args: "http http://example.com/ --servername a.example", says: "--servername is for https"},
		"too many redirects":                        {args: "http https://example.com/ --follow=6", says: "at most 5"},
		"redirects that are no number":              {args: "http https://example.com/ --follow=all", says: "--follow"},
		"a status that is none":                     {args: "http https://example.com/ --expect-status 2xx,600", says: `--expect-status "600"`},
		"a range of statuses upside down":           {args: "http https://example.com/ --expect-status 299-200", says: "--expect-status"},
		"an empty status":                           {args: "http https://example.com/ --expect-status ''", says: "--expect-status"},
		"a header's expression that is none":        {args: "http https://example.com/ --expect-header Server:[", says: "missing closing ]"},
		"an expected header without a name":         {args: "http https://example.com/ --expect-header :x", says: "NAME: REGEXP"},
		"a body's expression that is none":          {args: "http https://example.com/ --expect-body (", says: "--expect-body"},
		"a propagation of nothing":                  {args: "propagation", says: "propagation needs a NAME"},
		"a propagation without an expectation":      {args: "propagation example.com A", says: "propagation needs --expect VALUE"},
		"a propagation of an empty value":           {args: "propagation example.com A --expect ''", says: "--expect is empty"},
		"a propagation at one server":               {args: "propagation example.com A @192.0.2.1 --expect 192.0.2.1", says: "@SERVER belongs to dns"},
		"a propagation with an option of dig":       {args: "propagation example.com +short --expect 192.0.2.1", says: `"+short" belongs to dns`},
		"a propagation of another class":            {args: "propagation id.server TXT CH --expect x", says: "class CH"},
		"a propagation of two types":                {args: "propagation example.com A MX --expect 192.0.2.1", says: "one type or class too many"},
		"a propagation to a resolver's name":        {args: "propagation example.com --expect 192.0.2.1 --public dns.example", says: "not a resolver's address"},
		"a propagation to no public resolver":       {args: "propagation example.com --expect 192.0.2.1 --public ''", says: "--public is empty"},
		"a propagation that is watched too often":   {args: "propagation example.com --expect 192.0.2.1 --watch --every 1s", says: `--every is "1s"`},
		"a propagation that is watched for ever":    {args: "propagation example.com --expect 192.0.2.1 --watch --for 9000h", says: `--for is "9000h"`},
		"a propagation's times without a watch":     {args: "propagation example.com --expect 192.0.2.1 --for 1h", says: "--every and --for are for --watch"},
		"no origin":                                 {args: "origin", says: "origin needs URL"},
		"an origin without a scheme":                {args: "origin origin.example.com", says: `write "https://origin.example.com"`},
		"an origin with a port that is none":        {args: "origin https://origin.example.com:99999", says: `port "99999"`},
		"a forwarded Host that is none":             {args: "origin https://origin.example.com --host-header a/b", says: "--host-header"},
		"an origin of the other family":             {args: "origin https://192.0.2.1 -6", says: "IPv4 address"},
		"a profile that is not shipped":             {args: "origin https://a.example --profile cloudfornt", says: `"cloudfornt" is neither shipped (aws-alb, cloudflare, cloudfront) nor a file here`},
		"a profile's file that is not there":        {args: "origin https://a.example --profile ./none.yaml", says: `--profile ./none.yaml: no such file or directory; shipped are aws-alb`},
		"a profile that is a directory":             {args: "origin https://a.example --profile .", says: `--profile .: is a directory; shipped are aws-alb`},
		"a profile's file that is no profile":       {args: "origin https://a.example --profile ../../go.mod", says: "--profile ../../go.mod"},
		"an empty profile":                          {args: "origin https://a.example --profile ''", says: "--profile is empty"},
		"a profile that is not shipped, for tls":    {args: "tls a.example --profile nope", says: "neither shipped"},
		"a protocol that is none":                   {args: "origin https://a.example --ssl-protocols TLSv1.2,SSLv2", says: `--ssl-protocols "SSLv2" is not known`},
		"protocols of an origin without TLS":        {args: "origin http://a.example --ssl-protocols TLSv1.2", says: "--ssl-protocols is for https"},
		"from without a place":                      {args: "tcp example.com:443 from", says: "'from' needs a place"},
		"from twice":                                {args: "tcp example.com:443 from JP from DE", says: "twice"},
		"from in words and as a flag":               {args: "tcp example.com:443 from JP -F DE", says: "said twice"},
		"an empty --from":                           {args: "tcp example.com:443 --from ''", says: "--from is empty"},
		"a place with an empty part":                {args: "tcp example.com:443 from Germany++AWS", says: "empty part"},
		"a place of too many bytes":                 {args: "tcp example.com:443 from " + strings.Repeat("a", 1025), says: "from"},
		"a limit of 0":                              {args: "tcp example.com:443 -L 0", says: "1 to 10000"},
		"a limit beyond the bound":                  {args: "tcp example.com:443 --limit 10001", says: "1 to 10000"},
		"a limit that is no number":                 {args: "tcp example.com:443 --limit ten", says: `--limit is "ten"`},
		"both families":                             {args: "tcp example.com:443 -4 -6", says: "-4 and -6"},
		"an address of the other family":            {args: "tcp 192.0.2.1:443 -6", says: "IPv4 address"},
		"an IPv6 address for -4":                    {args: "tls [2001:db8::1] -4", says: "IPv6 address"},
		"a timeout that is none":                    {args: "tcp example.com:443 --timeout soon", says: `--timeout is "soon"`},
		"a timeout of less than a second":           {args: "tcp example.com:443 --timeout 10ms", says: "1s to 10m"},
		"a timeout of more than ten minutes":        {args: "tcp example.com:443 --timeout 601", says: "1s to 10m"},
		"an unknown format":                         {args: "tcp example.com:443 --format yaml", says: `"yaml" is not a format`},
		"-J beside another format":                  {args: "tcp example.com:443 --format csv -J", says: "exclude each other"},
		"a coordinator without a port":              {args: "tcp example.com:443 --coordinator localhost", says: "HOST:PORT"},
		"a CA file that is not there":               {args: "tcp example.com:443 --insecure=false --ca /nonexistent/ca.pem", says: "CA file"},
		"a bad limit in the environment":            {args: "tcp example.com:443", env: "ELSEWHERE_LIMIT=many", says: `ELSEWHERE_LIMIT is "many"`},
		"a bad format in the environment":           {args: "tcp example.com:443", env: "ELSEWHERE_FORMAT=yaml", says: "ELSEWHERE_FORMAT"},
		"a bad timeout in the environment":          {args: "tcp example.com:443", env: "ELSEWHERE_TIMEOUT=x", says: "ELSEWHERE_TIMEOUT"},
		"a bad switch in the environment":           {args: "tcp example.com:443", env: "ELSEWHERE_IPV4=perhaps", says: `ELSEWHERE_IPV4 is "perhaps"`},
		"a bad place in the environment":            {args: "tcp example.com:443", env: "ELSEWHERE_FROM=a,,b", says: "ELSEWHERE_FROM"},
		"a bad coordinator in the environment":      {args: "tcp example.com:443", env: "ELSEWHERE_COORDINATOR=x", says: "ELSEWHERE_COORDINATOR"},
		"show without an id":                        {args: "show", says: "which measurement"},
		"show with two ids":                         {args: "show " + theID + " " + theID, says: "one measurement at a time"},
		"show with something that is no id":         {args: "show 4711", says: "not a measurement's id"},
		"watch with something that is no id":        {args: "watch ../../etc", says: "not a measurement's id"},
		"show last when there is none":              {args: "show last", says: "no last measurement"},
		"agents with a word":                        {args: "agents all", says: `unexpected word "all"`},
		"agents as JUnit":                           {args: "agents --format junit", says: "junit is a format for measurements"},
		"measurements with a word":                  {args: "measurements all", says: `unexpected word "all"`},
		"version with a word":                       {args: "version please", says: `unexpected word "please"`},
		"a shell that is not known":                 {args: "completion elvish", says: `"elvish" is not a command`},
		"a token for nobody":                        {args: "token create", says: "--region REGION for an agent"},
		"a token for both":                          {args: "token create --region r --scope read --name n", says: "--region REGION for an agent"},
		"a token of an unknown scope":               {args: "token create --scope root --name n", says: "read, measure or admin"},
		"a client's token without a name":           {args: "token create --scope read", says: "--name is required"},
		"a quota for an agent":                      {args: "token create --region r --hourly 5", says: "--hourly is for a client's token"},
		"a quota of nothing, which would be none":   {args: "token create --scope measure --name n --hourly 0", says: "--hourly is 0; it is a number from 1"},
		"a country in words":                        {args: "token create --region r --country USA", says: "two letters"},
		"an agent's token for a year":               {args: "token create --region r --ttl 365d", says: "30d at most"},
		"a label for a client":                      {args: "token create --scope read --name n --label a=b", says: "--label is for an agent's token"},
		"a label without a value":                   {args: "token create --region r --label a", says: "KEY=VALUE"},
		"a region in capitals":                      {args: "token create --region EU", says: "--region \"EU\""},
		"a life of ten seconds":                     {args: "token create --region r --ttl 10s", says: "--ttl is \"10s\""},
		"a life that is none":                       {args: "token create --region r --ttl 1w", says: "--ttl is \"1w\""},
		"a token to revoke that is not named":       {args: "token revoke", says: "which token?"},
		"two tokens to revoke":                      {args: "token revoke a b", says: "one token at a time"},
		"an unknown command of token":               {args: "token delete", says: "\"delete\" is not a command"},
		"an agent to revoke that is not named":      {args: "agents revoke", says: "which agent?"},
		"an agent's name in capitals":               {args: "agents revoke FRA", says: "not an agent's name"},
		"an unknown kind of event":                  {args: "audit --kind nope", says: "token_refused"},
		"no events":                                 {args: "audit -n 0", says: "-n is 0"},
		"a token file that is not there":            {args: "agents --token @/nosuch/file", says: "--token: /nosuch/file"},
		"help for what is not there":                {args: "help nosuch", says: `"nosuch" is not a command`},
		"a name that would steer the terminal":      {args: "dns \x1b[31mred", says: `\x1b[31mred`},
		"a command that would steer the terminal":   {args: "\x1b[31mred", says: `\x1b[31mred`},
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

// fields splits a command line at spaces; ” is an empty word, ␣ a space, ␍ and ␊ what ends a line.
func fields(line string) []string {
	args := strings.Fields(line)
	for i := range args {
		args[i] = strings.NewReplacer("''", "", "␣", " ", "␍", "\r", "␊", "\n").Replace(args[i])
	}
	return args
}

// nobody is an address where nobody listens.
func nobody(t *testing.T) string {
	t.Helper()
	return closing(t, must[*probetest.Host](t)(probetest.ListenClosed(netip.MustParseAddrPort("127.0.0.1:0")))).Addr().String()
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
		"dns example.com", "tcp example.com:443", "tls example.com -J", "http https://example.com/", "agents", "measurements", "show " + theID, "watch " + theID,
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

// A CDN waits for an origin's response longer than other checks have time for.
func TestOriginsHaveAMinuteUnlessTheQuestionSaysOtherwise(t *testing.T) {
	c := blocked()
	w := newWorld(t).at(c.serve(t))
	w.run(t, "origin", "https://origin.example.com")
	w.run(t, "origin", "https://origin.example.com", "--timeout", "20s")
	w.run(t, "http", "https://origin.example.com")
	w["ELSEWHERE_TIMEOUT"] = "7"
	w.run(t, "origin", "https://origin.example.com")
	var got []string
	for _, req := range c.created {
		got = append(got, req.GetTimeout().AsDuration().String())
	}
	if diff := cmp.Diff([]string{"1m0s", "20s", "30s", "7s"}, got); diff != "" {
		t.Error(diff)
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
