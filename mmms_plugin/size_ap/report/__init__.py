"""What people see: tables, figures, the HTML page and its gallery of failures."""
