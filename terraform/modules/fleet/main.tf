# Machines that are lent: keyed by name, in private subnets, reached by nobody, each able to read its own join token and no more.

locals {
  order = { for index, hostname in sort(keys(var.vms)) : hostname => index }
}

resource "aws_instance" "this" {
  #checkov:skip=CKV_AWS_126:Detailed monitoring is paid for; the client says how the machine is.
  for_each             = var.vms
  ami                  = coalesce(each.value.ami_id, var.defaults.ami_id)
  instance_type        = coalesce(each.value.instance_type, var.defaults.instance_type)
  subnet_id            = coalesce(each.value.subnet_id, var.subnet_ids[local.order[each.key] % length(var.subnet_ids)])
  iam_instance_profile = aws_iam_instance_profile.this[each.key].name

  associate_public_ip_address = false
  vpc_security_group_ids      = [aws_security_group.this.id]
  ebs_optimized               = true

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
    instance_metadata_tags      = "disabled"
  }

  root_block_device {
    encrypted   = true
    volume_type = "gp3"
    volume_size = coalesce(each.value.disk_gb, var.defaults.disk_gb)
    tags        = { Name = "${var.name}-${each.key}" }
  }

  user_data_base64 = base64gzip(templatefile("${path.module}/boot.yaml.tftpl", {
    hostname       = each.key
    url            = var.allocator_url
    secret         = aws_secretsmanager_secret.join[each.key].name
    package        = var.client_package
    startup_script = var.startup_script
  }))

  tags = {
    Name             = "${var.name}-${each.key}"
    lablink          = var.name
    lablink-hostname = each.key
    lablink-pool     = each.value.pool
  }

  # A newer image or script is for the next machine of that name; one that runs may be somebody's.
  lifecycle {
    ignore_changes = [ami, user_data_base64, subnet_id]
  }
}

# What is in it, the allocator writes at every invitation: a token is in no state.
resource "aws_secretsmanager_secret" "join" {
  #checkov:skip=CKV2_AWS_57:A join token works once, and the allocator makes the next.
  #checkov:skip=CKV_AWS_149:A token that works once, for minutes, is encrypted with the service's own key.
  for_each                = var.vms
  name                    = "${var.name}/join/${each.key}"
  description             = "Join token of ${each.key}; works once"
  recovery_window_in_days = 0
  tags                    = { lablink = var.name, lablink-hostname = each.key }
}

resource "aws_iam_role" "this" {
  for_each             = var.vms
  name                 = "${var.name}-vm-${each.key}"
  path                 = "/${var.name}/vm/"
  permissions_boundary = var.permissions_boundary
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ec2.amazonaws.com" }
    }]
  })
}

resource "aws_iam_role_policy" "this" {
  for_each = var.vms
  name     = "join"
  role     = aws_iam_role.this[each.key].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = "secretsmanager:GetSecretValue"
      Resource = aws_secretsmanager_secret.join[each.key].arn
    }]
  })
}

resource "aws_iam_instance_profile" "this" {
  for_each = var.vms
  name     = "${var.name}-vm-${each.key}"
  path     = "/${var.name}/vm/"
  role     = aws_iam_role.this[each.key].name
}

resource "aws_security_group" "this" {
  name_prefix = "${var.name}-vms-"
  description = "Machines that are lent: nobody comes in"
  vpc_id      = var.vpc_id
  tags        = { Name = "${var.name}-vms" }
  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_egress_rule" "this" {
  #checkov:skip=CKV_AWS_382:A desktop's picture goes to whoever holds it, over any UDP port; people use the machine as their own.
  security_group_id = aws_security_group.this.id
  description       = "Out to anywhere"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "-1"
}
