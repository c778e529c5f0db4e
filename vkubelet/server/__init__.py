"""
The kubelet's HTTPS API, one endpoint family a file.

`app` serves, `tls` holds the certificates, `auth` lets in; every family is a function that takes the powers
it needs and gives routes. What a client needs to be allowed follows from the path (`authorization`), so a
new family is authorised from its first day.
"""
