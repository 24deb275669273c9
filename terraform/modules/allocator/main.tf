# The allocator: one instance that runs its containers, reached on 443 by people and machines and on 22 by admins.

locals {
  container = var.database == null
  direct    = var.transport != "hub"
  database  = coalesce(var.database, { host = var.hostname, port = 5432, master_secret_arn = null, kms_key_arn = null, log_group = null })

  settings = concat([
    "database=server",
    "database.host=${local.database.host}",
    "database.port=${local.database.port}",
    "database.ca_file=/etc/lablink/ca.pem",
    "database.owner.password=file:/run/secrets/owner-password",
    "database.service.password=file:/run/secrets/app-password",
    "server.public_url=https://${var.hostname}",
    "transport=${var.transport}",
    "backup=s3",
    "backup.to=s3://${var.bucket}/backups",
    "fleet=aws",
    ], var.identity_certificate == null ? [] : [
    "identity=ec2",
    "identity.fleet=${var.name}",
    "identity.accounts=['${data.aws_caller_identity.current.account_id}']",
    "identity.regions=[${data.aws_region.current.name}]",
    "identity.certificates=/etc/lablink/identity",
  ], var.settings)

  files = merge({
    "/etc/lablink/overrides"  = { content = join("\n", concat(local.settings, [""])) }
    "/etc/lablink/fleet.json" = { content = jsonencode(var.fleet) }
    "/etc/lablink/Caddyfile" = { content = templatefile("${path.module}/Caddyfile.tftpl", {
      hostname    = var.hostname
      certificate = var.certificate_secret_arn != null
    }) }
    "/etc/lablink/services.yaml" = { content = file("${path.module}/../../../docker/services.yaml") }
    "/etc/lablink/compose.yaml" = { content = templatefile("${path.module}/compose.yaml.tftpl", {
      images      = var.images
      container   = local.container
      certificate = var.certificate_secret_arn != null
      database    = local.database
      region      = data.aws_region.current.name
    }) }
    "/usr/local/lib/lablink/boot" = { permissions = "0755", content = templatefile("${path.module}/boot.sh.tftpl", {
      hostname    = var.hostname
      cidr        = local.direct ? var.cidr : null
      region      = data.aws_region.current.name
      volume      = replace(aws_ebs_volume.this.id, "-", "")
      container   = local.container
      image       = var.images.postgres
      database    = local.database
      certificate = var.certificate_secret_arn
    }) }
    }, local.container ? {
    "/etc/lablink/pg_ident.conf" = { content = file("${path.module}/../../../docker/postgres/pg_ident.conf") }
    } : {}, var.identity_certificate == null ? {} : {
    "/etc/lablink/identity/${data.aws_region.current.name}.pem" = { content = var.identity_certificate }
  })

  boot = join("\n", ["#cloud-config", jsonencode({
    write_files = [for path, file in local.files : merge({ path = path, permissions = "0644" }, file)]
    runcmd      = [["/usr/local/lib/lablink/boot"]]
  })])
}

data "aws_region" "current" {}

resource "aws_instance" "this" {
  #checkov:skip=CKV_AWS_88:People come to it from the internet.
  #checkov:skip=CKV_AWS_126:Detailed monitoring is paid for; /metrics says how the allocator is.
  #checkov:skip=CKV_AWS_135:Every type of today is optimised for EBS by itself, and an older one refuses to be told so.
  ami                         = var.ami_id
  instance_type               = var.instance_type
  subnet_id                   = var.subnet.id
  iam_instance_profile        = aws_iam_instance_profile.this.name
  key_name                    = var.ssh_key
  associate_public_ip_address = true
  vpc_security_group_ids      = [aws_security_group.this.id]

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
    instance_metadata_tags      = "disabled"
  }

  root_block_device {
    encrypted   = true
    volume_type = "gp3"
    volume_size = 20
  }

  # What is to be kept is on the volume: with other settings a new instance takes the old one's place, in minutes.
  user_data_base64            = base64gzip(local.boot)
  user_data_replace_on_change = true

  tags = { Name = "${var.name}-allocator" }

  lifecycle {
    ignore_changes = [ami]
    precondition {
      condition     = length(base64gzip(local.boot)) * 3 / 4 <= 16384
      error_message = "The allocator's user-data has more than 16 kB: shorten settings or the fleet's startup_script."
    }
  }
}

resource "aws_ebs_volume" "this" {
  #checkov:skip=CKV_AWS_189:Encrypted with the account's own key for EBS, like every volume of the deployment.
  #checkov:skip=CKV2_AWS_9:What is on it is backed up by lablink itself, to the bucket.
  availability_zone = var.subnet.availability_zone
  size              = var.data_gb
  type              = "gp3"
  encrypted         = true
  final_snapshot    = true
  tags              = { Name = "${var.name}-data" }
}

resource "aws_volume_attachment" "this" {
  device_name                    = "/dev/sdf"
  volume_id                      = aws_ebs_volume.this.id
  instance_id                    = aws_instance.this.id
  stop_instance_before_detaching = true
}

resource "aws_eip" "this" {
  domain = "vpc"
  tags   = { Name = "${var.name}-allocator" }
}

resource "aws_eip_association" "this" {
  allocation_id = aws_eip.this.id
  instance_id   = aws_instance.this.id
}

resource "aws_route53_record" "public" {
  #checkov:skip=CKV2_AWS_23:It points to the elastic address above.
  count   = var.public_zone_id == null ? 0 : 1
  zone_id = var.public_zone_id
  name    = var.hostname
  type    = "A"
  ttl     = 300
  records = [aws_eip.this.public_ip]
}

# Inside the network the name leads to the private address: machines never go by way of the internet.
resource "aws_route53_zone" "private" {
  #checkov:skip=CKV2_AWS_38:A private zone cannot be signed.
  #checkov:skip=CKV2_AWS_39:A private zone's queries are the machines' own.
  name = var.hostname
  vpc {
    vpc_id = var.vpc_id
  }
}

resource "aws_route53_record" "private" {
  #checkov:skip=CKV2_AWS_23:It points to the instance above.
  zone_id = aws_route53_zone.private.zone_id
  name    = var.hostname
  type    = "A"
  ttl     = 30
  records = [aws_instance.this.private_ip]
}

resource "aws_security_group" "this" {
  name_prefix = "${var.name}-allocator-"
  description = "The allocator of ${var.name}"
  vpc_id      = var.vpc_id
  tags        = { Name = "${var.name}-allocator" }
  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "people" {
  for_each          = var.people_cidrs
  security_group_id = aws_security_group.this.id
  description       = "Web page and API"
  cidr_ipv4         = each.key
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_ingress_rule" "admins" {
  for_each          = var.admin_cidrs
  security_group_id = aws_security_group.this.id
  description       = "SSH of admins"
  cidr_ipv4         = each.key
  ip_protocol       = "tcp"
  from_port         = 22
  to_port           = 22
}

resource "aws_vpc_security_group_ingress_rule" "vms" {
  for_each                     = merge({ https = 443 }, local.container && local.direct ? { postgresql = 5432 } : {})
  security_group_id            = aws_security_group.this.id
  description                  = "Machines, ${each.key}"
  referenced_security_group_id = var.vms_security_group_id
  ip_protocol                  = "tcp"
  from_port                    = each.value
  to_port                      = each.value
}

resource "aws_vpc_security_group_egress_rule" "this" {
  #checkov:skip=CKV_AWS_382:It asks AWS, registries and Let's Encrypt, none of which has fixed addresses.
  security_group_id = aws_security_group.this.id
  description       = "Out to anywhere"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "-1"
}
