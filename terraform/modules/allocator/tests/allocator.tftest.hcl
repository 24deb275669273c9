# What the allocator promises, against a mock of AWS.
mock_provider "aws" {
  source = "./tests/mocks"
}

run "encrypted_volumes" {
  assert {
    condition     = aws_instance.this.root_block_device[0].encrypted && aws_ebs_volume.this.encrypted
    error_message = "the system's disk and the volume with the database are encrypted"
  }
  assert {
    condition     = aws_ebs_volume.this.final_snapshot && aws_volume_attachment.this.stop_instance_before_detaching
    error_message = "the volume leaves a snapshot, and is never pulled from under a running database"
  }
  assert {
    condition     = aws_ebs_volume.this.availability_zone == "eu-central-1a"
    error_message = "the volume is where the instance is"
  }
}

run "metadata_for_the_instance_itself_alone" {
  assert {
    condition     = aws_instance.this.metadata_options[0].http_tokens == "required" && aws_instance.this.metadata_options[0].http_put_response_hop_limit == 1
    error_message = "metadata is given to who has a token (IMDSv2), and no hop further"
  }
}

run "people_come_to_the_page_and_nobody_else_to_anything" {
  variables {
    admin_cidrs = ["192.0.2.7/32"]
    ssh_key     = "ada"
  }
  assert {
    condition     = { for cidr, rule in aws_vpc_security_group_ingress_rule.people : cidr => [rule.from_port, rule.to_port] } == { "0.0.0.0/0" = [443, 443] }
    error_message = "people come to 443"
  }
  assert {
    condition     = { for cidr, rule in aws_vpc_security_group_ingress_rule.admins : cidr => [rule.from_port, rule.to_port] } == { "192.0.2.7/32" = [22, 22] }
    error_message = "admins come to 22, from where they are"
  }
  assert {
    condition     = { for what, rule in aws_vpc_security_group_ingress_rule.vms : what => [rule.from_port, rule.to_port] } == { https = [443, 443], postgresql = [5432, 5432] } && alltrue([for rule in aws_vpc_security_group_ingress_rule.vms : rule.referenced_security_group_id == "sg-vms" && rule.cidr_ipv4 == null])
    error_message = "machines come to the page and to PostgreSQL, by their group"
  }
  assert {
    condition     = aws_instance.this.vpc_security_group_ids == toset([aws_security_group.this.id]) && aws_instance.this.key_name == "ada"
    error_message = "it is in its own group and no other"
  }
}

run "over_the_hub_machines_do_not_come_to_postgresql" {
  variables {
    transport = "hub"
  }
  assert {
    condition     = keys(aws_vpc_security_group_ingress_rule.vms) == ["https"] && !strcontains(local.files["/usr/local/lib/lablink/boot"].content, "--cidr")
    error_message = "no database port is open to machines, and PostgreSQL would let none in"
  }
  assert {
    condition     = contains(output.settings, "transport=hub")
    error_message = "the allocator tells them so"
  }
}

run "with_auto_both_ways_are_open" {
  variables {
    transport = "auto"
  }
  assert {
    condition     = keys(aws_vpc_security_group_ingress_rule.vms) == ["https", "postgresql"] && contains(output.settings, "transport=auto")
    error_message = "machines come to PostgreSQL while the hub is away"
  }
}

run "nobody_logs_in_unless_asked" {
  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.admins) == 0
    error_message = "without admin_cidrs there is no SSH"
  }
}

run "database_in_a_container" {
  assert {
    condition     = keys(yamldecode(local.files["/etc/lablink/compose.yaml"].content).services) == ["allocator", "postgres", "proxy"]
    error_message = "PostgreSQL is one of the containers"
  }
  assert {
    condition     = contains(output.settings, "database.host=lablink.example.org") && contains(output.settings, "database=server")
    error_message = "it is reached by its name, with TLS"
  }
  assert {
    condition     = anytrue([for volume in yamldecode(local.files["/etc/lablink/compose.yaml"].content).services.postgres.volumes : startswith(volume, "/var/lib/lablink/postgresql/data:")])
    error_message = "its data is on the volume that outlives the instance"
  }
  assert {
    condition     = strcontains(local.files["/etc/lablink/pg_ident.conf"].content, "container") && strcontains(local.files["/usr/local/lib/lablink/boot"].content, "local all all peer map=container")
    error_message = "docker exec lablink-postgres psql -U lablink -d lablink_db asks for no password"
  }
}

run "database_in_rds" {
  variables {
    database = { host = "db.example.com", port = 5432, master_secret_arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:rds", log_group = "/aws/rds/instance/lablink-test/postgresql" }
  }
  assert {
    condition     = keys(yamldecode(local.files["/etc/lablink/compose.yaml"].content).services) == ["allocator", "proxy"]
    error_message = "there is no PostgreSQL here"
  }
  assert {
    condition     = !contains(keys(local.files), "/etc/lablink/pg_ident.conf")
    error_message = "and nothing of one"
  }
  assert {
    condition     = contains(output.settings, "database.host=db.example.com") && keys(aws_vpc_security_group_ingress_rule.vms) == ["https"]
    error_message = "the allocator goes to RDS, and so do machines"
  }
  assert {
    condition     = local.allowed.ReadMasterPassword.Resource == var.database.master_secret_arn
    error_message = "the master password is read where RDS keeps it"
  }
  assert {
    condition     = local.allowed.ReadDatabaseLog.Resource == "arn:aws:logs:eu-central-1:123456789012:log-group:/aws/rds/instance/lablink-test/postgresql:*"
    error_message = "and its log, for lablink db watch-logs"
  }
}

run "tls_by_lets_encrypt" {
  assert {
    condition     = strcontains(local.files["/etc/lablink/Caddyfile"].content, "https://lablink.example.org {") && strcontains(local.files["/etc/lablink/Caddyfile"].content, "issuer acme")
    error_message = "the proxy gets a certificate by itself"
  }
}

run "tls_by_a_certificate_of_ones_own" {
  variables {
    people_cidrs           = ["192.0.2.0/24"]
    certificate_secret_arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:web"
  }
  assert {
    condition     = !strcontains(local.files["/etc/lablink/Caddyfile"].content, "acme") && local.allowed.ReadCertificate.Resource == var.certificate_secret_arn
    error_message = "the certificate comes from the secret"
  }
}

run "machines_show_what_aws_has_signed" {
  variables {
    identity_certificate = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
  }
  assert {
    condition     = alltrue([for line in ["identity=ec2", "identity.fleet=lablink-test", "identity.accounts=['123456789012']", "identity.regions=[eu-central-1]"] : contains(output.settings, line)])
    error_message = "only this account's machines of this deployment and region enrol"
  }
  assert {
    condition     = local.files["/etc/lablink/identity/eu-central-1.pem"].content == var.identity_certificate
    error_message = "and what they show is held against the region's certificate"
  }
}

run "nothing_secret_in_user_data_or_settings" {
  assert {
    condition     = alltrue([for line in output.settings : !strcontains(line, "password") || strcontains(line, "=file:")])
    error_message = "settings say where passwords are"
  }
  assert {
    condition     = !can(regex("(?i)PRIVATE KEY|AKIA", local.boot)) && !can(regex("password[^a-z]*[:=] *['\"]", local.boot))
    error_message = "user-data holds no password and no key: they are made on the instance"
  }
}

run "containers_can_do_little" {
  assert {
    condition     = yamldecode(local.files["/etc/lablink/services.yaml"].content).services.lablink.read_only && yamldecode(local.files["/etc/lablink/services.yaml"].content).services.lablink.cap_drop == ["ALL"] && yamldecode(local.files["/etc/lablink/services.yaml"].content).services.allocator.user == "10001:10001"
    error_message = "the allocator is not root, has no capability and writes nowhere but to its volume"
  }
  assert {
    condition     = yamldecode(local.files["/etc/lablink/compose.yaml"].content).services.allocator.extends == { file = "services.yaml", service = "allocator" } && !can(yamldecode(local.files["/etc/lablink/compose.yaml"].content).services.allocator.user)
    error_message = "the instance has the allocator that docker/compose.yaml has, and leaves it what it is"
  }
  assert {
    condition     = yamldecode(local.files["/etc/lablink/compose.yaml"].content).services.proxy.restart == "always" && alltrue([for name in ["allocator", "postgres"] : yamldecode(local.files["/etc/lablink/services.yaml"].content).services[name].restart == "always"])
    error_message = "what ends comes back"
  }
}

run "named_after_the_deployment" {
  assert {
    condition     = aws_instance.this.tags["Name"] == "lablink-test-allocator" && aws_ebs_volume.this.tags["Name"] == "lablink-test-data" && aws_iam_role.this.name == "lablink-test-allocator" && startswith(aws_security_group.this.name_prefix, "lablink-test-")
    error_message = "everything is named after the deployment"
  }
  assert {
    condition     = aws_route53_zone.private.name == "lablink.example.org" && aws_route53_record.private.records == toset(["10.42.0.5"]) && length(aws_route53_record.public) == 0
    error_message = "inside the network the hostname is the private address; outside nobody is told unless asked"
  }
}

run "a_public_name_if_asked" {
  variables {
    public_zone_id = "Z1"
  }
  assert {
    condition     = aws_route53_record.public[0].records == toset([output.public_ip]) && output.public_ip == "198.51.100.7"
    error_message = "the hostname leads to the elastic address"
  }
}
