package render

// What is shown of the fixtures, in brief and in depth.
const (
	briefDNS = `eu-west  eu-1  ✓ 203.0.113.10 ttl 60 ad nsid fra\x1b1 subnet 192.0.2.0/24 scope 24 12 ms
note: @192.0.2.53:53  2 replies to one query: 203.0.113.10, then 198.51.100.66  (eu-1)
note: @192.0.2.53:53  www.example.com → cdn.example.net ✗ dns_nxdomain (in the zone example.net)  (eu-1)
note: @192.0.2.53:53  DNSSEC: signature expired: A RRSIG ended on 2026-11-01  (eu-1)
note: @192.0.2.53:53  EDE 3 (Stale Answer): old  (eu-1)
note: @192.0.2.7:53  ns3.example.com is lame for example.com: it answers REFUSED for a name in example.com  (eu-1)
note: @192.0.2.53:53  for a name that should not exist: ✓ 198.51.100.99  (eu-1)
note: this agent's clock is 12.0 s slow  (eu-1)
zone example.com (signed, 2 different serials)  (eu-1)
  ns1.example.com  192.0.2.5:53  serial 7                      ✓ 203.0.113.10
  ns2.example.com  192.0.2.6:53  serial 6                      ✓ 203.0.113.10
  ns3.example.com  192.0.2.7:53            at the parent only  ✗ dns_lame it answers REFUSED for a name in example.com
public resolvers  (eu-1)
  8.8.8.8:53  Google  ✓ 203.0.113.10
from the root down  (eu-1)
  .  198.41.0.4:53  ✓ → com (2 servers, signed)
    com  a.gtld-servers.net 192.5.6.30:53  ✓ → example.com (1 server)
      example.com  ns1.example.com 192.0.2.5:53  ✓ www.example.com A 203.0.113.10
      example.com  ns2.example.com 192.0.2.6:53  ✓ www.example.com A 203.0.113.10
      example.com  ns3.example.com 192.0.2.7:53  ✗ dns_lame
`
	allDNS = `eu-west  eu-1  ✓ 203.0.113.10 ttl 60 ad nsid fra\x1b1 subnet 192.0.2.0/24 scope 24 12 ms
    query www.example.com A @192.0.2.53:53  ✓ 12 ms
      UDP  NOERROR  ra  ad  12 ms  99 bytes  nsid fra\x1b1  subnet 192.0.2.0/24 scope 24
        www.example.com  60  CNAME  cdn.example.net.
        www.example.com  60  A      203.0.113.10
      EDE 3 (Stale Answer): old
      UDP  NOERROR  ra  12 ms  99 bytes
        www.example.com  5  A  198.51.100.66
    @192.0.2.53:53  2 replies to one query: 203.0.113.10, then 198.51.100.66
    @192.0.2.53:53  www.example.com → cdn.example.net ✗ dns_nxdomain (in the zone example.net)
    @192.0.2.53:53  DNSSEC: signature expired: A RRSIG ended on 2026-11-01
    @192.0.2.53:53  for a name that should not exist: ✓ 198.51.100.99
    this agent's clock is 12.0 s slow
    zone example.com (signed, 2 different serials)
      ns1.example.com  192.0.2.5:53  serial 7                      ✓ 203.0.113.10 12 ms
      ns2.example.com  192.0.2.6:53  serial 6                      ✓ 203.0.113.10 12 ms
      ns3.example.com  192.0.2.7:53            at the parent only  ✗ dns_lame it answers REFUSED for a name in example.com 12 ms
    public resolvers
      8.8.8.8:53  Google  ✓ 203.0.113.10 ttl 60 12 ms
    from the root down
      .  198.41.0.4:53  ✓ → com (2 servers, signed) 12 ms
        com  a.gtld-servers.net 192.5.6.30:53  ✓ → example.com (1 server) 12 ms
          example.com  ns1.example.com 192.0.2.5:53  ✓ www.example.com A 203.0.113.10 12 ms
          example.com  ns2.example.com 192.0.2.6:53  ✓ www.example.com A 203.0.113.10 12 ms
          example.com  ns3.example.com 192.0.2.7:53  ✗ dns_lame 12 ms
`
	briefTLS = `eu-west  eu-1  203.0.113.10:443 ✗ cert_expired, cert_chain_incomplete 30 ms
note: 203.0.113.10:443  certificate 0 “www.example.com”: cert_expired, cert_weak_key (2026-08-22 to 2026-11-20, RSA 1024, SHA1-RSA)  (eu-1)
note: 203.0.113.10:443  not served: “R3” (http://ca.example/r3.crt)  (eu-1)
note: 203.0.113.10:443  the chain is not in order  (eu-1)
note: 203.0.113.10:443  certificate 1 “other”: not on the path  (eu-1)
note: 203.0.113.10:443  the root is served too, which nobody needs  (eu-1)
note: 203.0.113.10:443  not trusted: issued after 2026-01-01  (eu-1)
note: 203.0.113.10:443  the certificate is not for host.example.com (its common name alone matches)  (eu-1)
note: 203.0.113.10:443  OCSP: revoked since 2026-11-22 (2026-11-22 to 2026-11-22), not to be relied on: it is old  (eu-1)
note: 203.0.113.10:443  the certificate is for www.example.com  (eu-1)
note: 203.0.113.10:443  with another server_name (other.example): ✓ TLS 1.3  (eu-1)
what 203.0.113.10:443 accepts  (eu-1)
  TLS 1.3  no (tls_version_unsupported)
  TLS 1.2  2 suites in the server's order; groups x25519
    TLS_A
    TLS_B
`
	allTLS = `eu-west  eu-1  203.0.113.10:443 ✗ cert_expired, cert_chain_incomplete 30 ms
    tcp 203.0.113.10:443  ✓ 12 ms
    tls 203.0.113.10:443  TLS 1.2  TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256  x25519  h2  ✗ cert_expired, cert_chain_incomplete 30 ms
      0  CN=www.example.com  RSA 1024, SHA1-RSA, 2026-08-22 to 2026-11-20
         issuer CN=R3
         for www.example.com
         sha256 ab12
      1  CN=other  , , ? to ?
         issuer
         sha256 cd34
      … and 1 more certificates
      path: CN=www.example.com ← CN=R3 ← CN=Root
      the certificate is for www.example.com
      certificate 0 “www.example.com”: cert_expired, cert_weak_key (2026-08-22 to 2026-11-20, RSA 1024, SHA1-RSA)
      not served: “R3” (http://ca.example/r3.crt)
      the chain is not in order
      certificate 1 “other”: not on the path
      the root is served too, which nobody needs
      not trusted: issued after 2026-01-01
      the certificate is not for host.example.com (its common name alone matches)
      OCSP: revoked since 2026-11-22 (2026-11-22 to 2026-11-22), not to be relied on: it is old
    203.0.113.10:443  with another server_name (other.example): ✓ TLS 1.3
    what 203.0.113.10:443 accepts
      TLS 1.3  no (tls_version_unsupported)
      TLS 1.2  2 suites in the server's order; groups x25519
        TLS_A
        TLS_B
`
	briefHTTP = `eu-west  eu-1  203.0.113.10:443 ✗ http_status 502 HTTP/2 33 ms
note: 203.0.113.10:443  redirect 301 → https://example.com/ at 203.0.113.10:443  (eu-1)
note: 203.0.113.10:443  CloudFront itself made this 502: it cannot connect to the origin, site SEA19-C1, request xyz==  (eu-1)
note: 203.0.113.10:443  not as expected: the status is 502 and should be 200  (eu-1)
`
	allHTTP = `eu-west  eu-1  203.0.113.10:443 ✗ http_status 502 HTTP/2 33 ms
    query example.com A @192.0.2.53:53  ✓ 12 ms
      UDP  NOERROR  12 ms  99 bytes
        example.com  60  A  203.0.113.10
    tcp 203.0.113.10:443  ✓ 5.0 ms
    tls 203.0.113.10:443  ✓ 7.0 ms
    http 203.0.113.10:443  GET https://example.com/  ✗ http_status 502 HTTP/2 33 ms
      dns 12 ms, connect 5.0 ms, tls 7.0 ms, first byte 30 ms, done 33 ms
      server: CloudFront
      x-evil: \x1b[2J
      body: 900 bytes, sha256 ab12
      | <h1>502
      | \x1b[31m</h1>
    203.0.113.10:443  redirect 301 → https://example.com/ at 203.0.113.10:443
    203.0.113.10:443  CloudFront itself made this 502: it cannot connect to the origin, site SEA19-C1, request xyz==
    203.0.113.10:443  not as expected: the status is 502 and should be 200
`
	briefTCP = `eu-west  eu-1  203.0.113.10:443 ✗ tcp_admin_prohibited icmp 3/13 from 192.0.2.254 20 ms  203.0.113.11:443 ✓ 12 ms
path to 203.0.113.10:443: it is rejected by 192.0.2.254  (eu-1)
   1  10.0.0.1     1.0 ms
   2  *
   3  192.0.2.254  2.0 ms  icmp 3/13
`
	allTCP = `eu-west  eu-1  203.0.113.10:443 ✗ tcp_admin_prohibited icmp 3/13 from 192.0.2.254 20 ms  203.0.113.11:443 ✓ 12 ms
    tcp 203.0.113.10:443  from 192.0.2.7:40000  ✗ tcp_admin_prohibited 20 ms  icmp 3/13 from 192.0.2.254  EHOSTUNREACH
      attempt 1: tcp_admin_prohibited after 20 ms
    tcp 203.0.113.11:443  from 192.0.2.7:40001  ✓ 12 ms
      it says first: SSH-2.0-x\x1b[2J
    path to 203.0.113.10:443: it is rejected by 192.0.2.254
       1  10.0.0.1     1.0 ms
       2  *
       3  192.0.2.254  2.0 ms  icmp 3/13
`
)
