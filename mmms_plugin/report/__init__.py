"""The kit that every report is made with: tables, figures, drawings, and a page with a gallery."""
