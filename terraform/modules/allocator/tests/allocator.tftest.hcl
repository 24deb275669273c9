# What the allocator promises, against a mock of AWS.
mock_provider "aws" {
  mock_data "aws_region" {
    defaults = { name = "eu-central-1" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_resource "aws_ebs_volume" {
    defaults = { id = "vol-0123456789abcdef0" }
  }
  mock_resource "aws_iam_policy" {
    defaults = { arn = "arn:aws:iam::123456789012:policy/lablink-test-vm" }
  }
  mock_resource "aws_instance" {
    defaults = { private_ip = "10.42.0.5" }
  }
  mock_resource "aws_eip" {
    defaults = { public_ip = "198.51.100.7" }
  }
}

variables {
  name                  = "lablink-test"
  hostname              = "lablink.example.org"
  vpc_id                = "vpc-1"
  cidr                  = "10.42.0.0/16"
  subnet                = { id = "subnet-public", availability_zone = "eu-central-1a" }
  vms_subnet_ids        = ["subnet-1", "subnet-2"]
  vms_security_group_id = "sg-vms"
  ami_id                = "ami-00000000000000001"
  images                = { allocator = "ghcr.io/talmolab/lablink-allocator-image:1.0" }
  bucket                = "lablink-test-bucket"
  fleet                 = { variables = { region = "eu-central-1" } }
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

run "nobody_logs_in_unless_asked" {
  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.admins) == 0
    error_message = "without admin_cidrs there is no SSH"
  }
}

run "a_role_for_this_deployment" {
  assert {
    condition     = alltrue([for sid, what in local.allowed : sid == "Look" || alltrue([for resource in flatten([what.Resource]) : resource != "*"])])
    error_message = "only looking around is allowed on everything"
  }
  assert {
    condition     = alltrue([for action in local.allowed.Look.Action : can(regex(":(Describe|Get)", action))])
    error_message = "and looking changes nothing"
  }
  assert {
    condition     = alltrue(flatten([for what in local.allowed : [for action in flatten([what.Action]) : !strcontains(action, "*")]]))
    error_message = "every action is named"
  }
  assert {
    condition     = alltrue([for sid in ["MakeMachines", "MakeVolumes"] : local.allowed[sid].Condition.StringEquals["aws:RequestTag/lablink"] == "lablink-test"]) && local.allowed.ChangeOurs.Condition.StringEquals["aws:ResourceTag/lablink"] == "lablink-test"
    error_message = "machines are made with the deployment's tag, and only such are changed"
  }
  assert {
    condition     = local.allowed.MakeMachines.Condition.StringEquals["ec2:MetadataHttpTokens"] == "required" && local.allowed.MakeVolumes.Condition.Bool["ec2:Encrypted"] == "true"
    error_message = "no machine without IMDSv2, no volume in the clear"
  }
  assert {
    condition     = contains(local.allowed.MakeThemHere.Resource, "arn:aws:ec2:eu-central-1:123456789012:subnet/subnet-1") && !contains(local.allowed.MakeThemHere.Resource, "arn:aws:ec2:eu-central-1:123456789012:subnet/subnet-public")
    error_message = "machines are made in the private subnets only"
  }
  assert {
    condition     = local.allowed.TagWhatIsMade.Condition.StringEquals["ec2:CreateAction"] == "RunInstances"
    error_message = "nothing that is there already is made ours by a tag"
  }
  assert {
    condition     = lookup(aws_instance.this.tags, "lablink", null) == null
    error_message = "the allocator is no machine of the fleet, which it could terminate"
  }
  assert {
    condition     = jsondecode(aws_iam_role_policy.this.policy).Statement[*].Sid == keys(local.allowed)
    error_message = "this is the role's policy"
  }
  assert {
    condition     = length(aws_iam_role_policy.this.policy) < 10240
    error_message = "and AWS takes one so long"
  }
}

run "no_role_beyond_the_boundary" {
  assert {
    condition     = local.allowed.MakeRoles.Condition.StringEquals["iam:PermissionsBoundary"] == output.vm_boundary_arn
    error_message = "roles can only be made and filled within the boundary"
  }
  assert {
    condition     = alltrue([for sid in ["MakeRoles", "KeepRoles", "GiveRoles"] : local.allowed[sid].Resource == "arn:aws:iam::123456789012:role/lablink-test/vm/*"])
    error_message = "only machines' roles are touched"
  }
  assert {
    condition     = jsondecode(aws_iam_policy.vm.policy).Statement == [{ Effect = "Allow", Action = "secretsmanager:GetSecretValue", Resource = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:lablink-test/join/*" }]
    error_message = "the most that a machine can ever do is to read a join token"
  }
}

run "state_and_backups_and_no_more_of_the_bucket" {
  assert {
    condition     = local.allowed.KeepStateAndBackups.Resource == ["arn:aws:s3:::lablink-test-bucket/fleet/*", "arn:aws:s3:::lablink-test-bucket/backups/*"]
    error_message = "the platform's own state is not the allocator's to read or write"
  }
}

run "alarms_if_asked" {
  variables {
    topic_arn = "arn:aws:sns:eu-central-1:123456789012:alarms"
  }
  assert {
    condition     = local.allowed.TellOfAlarms == { Action = "sns:Publish", Resource = var.topic_arn }
    error_message = "the topic may be told"
  }
}

run "no_alarms_unless_asked" {
  assert {
    condition     = !anytrue([for sid in ["TellOfAlarms", "ReadCertificate", "ReadMasterPassword", "ReadDatabaseLog"] : contains(keys(local.allowed), sid)])
    error_message = "nothing is allowed that nobody asked for"
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
    condition     = yamldecode(local.files["/etc/lablink/compose.yaml"].content).services.allocator.read_only && yamldecode(local.files["/etc/lablink/compose.yaml"].content).services.allocator.cap_drop == ["ALL"] && yamldecode(local.files["/etc/lablink/compose.yaml"].content).services.allocator.user == "10001:10001"
    error_message = "the allocator is not root, has no capability and writes nowhere but to its volume"
  }
  assert {
    condition     = alltrue([for service in yamldecode(local.files["/etc/lablink/compose.yaml"].content).services : service.restart == "always"])
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

run "bad_names_are_refused" {
  command = plan
  variables {
    name     = "Lab_Link"
    hostname = "https://lablink.example.org"
  }
  expect_failures = [var.name, var.hostname]
}

run "ssh_from_everywhere_is_refused" {
  command = plan
  variables {
    admin_cidrs = ["0.0.0.0/0"]
    ssh_key     = "ada"
  }
  expect_failures = [var.admin_cidrs]
}

run "ssh_without_a_key_is_refused" {
  command = plan
  variables {
    admin_cidrs = ["192.0.2.7/32"]
  }
  expect_failures = [var.ssh_key]
}

run "lets_encrypt_behind_a_wall_is_refused" {
  command = plan
  variables {
    people_cidrs = ["192.0.2.0/24"]
  }
  expect_failures = [var.certificate_secret_arn]
}

run "odd_values_are_refused" {
  command = plan
  variables {
    cidr           = "everything"
    vms_subnet_ids = []
    ami_id         = "ubuntu"
    instance_type  = "small"
    data_gb        = 1
    bucket         = "My Bucket"
    topic_arn      = "alarms"

    identity_certificate = "AWS"
  }
  expect_failures = [var.cidr, var.vms_subnet_ids, var.ami_id, var.instance_type, var.data_gb, var.bucket, var.topic_arn, var.identity_certificate]
}

run "images_without_a_tag_are_refused" {
  command = plan
  variables {
    images = { allocator = "ghcr.io/talmolab/lablink-allocator-image" }
  }
  expect_failures = [var.images]
}

run "settings_that_are_none_are_refused" {
  command = plan
  variables {
    settings = ["pool.programs"]
  }
  expect_failures = [var.settings]
}

run "no_people_are_refused" {
  command = plan
  variables {
    people_cidrs           = []
    certificate_secret_arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:web"
  }
  expect_failures = [var.people_cidrs]
}
